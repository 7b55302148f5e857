"""From extracted networks to deployment: ONNX, measuring on devices, bundles, and the runtime that serves them."""
