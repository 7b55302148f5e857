"""The agent: a small server that runs ONNX models on another computer or a phone."""
