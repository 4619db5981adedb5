"""What the stages have in common: a plain library that knows neither Kubeflow nor the stages."""
