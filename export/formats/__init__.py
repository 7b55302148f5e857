"""Model formats: ONNX files, their quantization, and the proof that they compute the same."""
