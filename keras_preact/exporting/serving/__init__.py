"""TensorFlow Serving: its files, warm-up requests and a client."""
