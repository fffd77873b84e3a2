"""Files that run without OpenMMLab: exported programs and ONNX, for images of any size."""
