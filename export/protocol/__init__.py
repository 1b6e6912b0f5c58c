"""How TensorFlow Serving's protocol is spoken."""
