"""Training steps: state, loss, gradients, update; evaluation and BN statistics."""
