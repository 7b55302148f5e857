"""Model formats: ONNX files that compute what PyTorch computes, and their quantization."""
