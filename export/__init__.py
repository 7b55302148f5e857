"""What happens to an extracted network: ONNX, timing, bundles, and the runtime that serves them."""
