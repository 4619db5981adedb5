"""The stage `infer`."""
