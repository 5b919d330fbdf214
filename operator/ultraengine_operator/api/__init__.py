"""The three kinds of `ultraengine.io/v1alpha1` as typed values."""
