"""Reading and augmenting photographs, beside the usual pipeline of TensorFlow's official models."""
