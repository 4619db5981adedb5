"""Stage `import_model`."""
