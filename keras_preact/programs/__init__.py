"""The programs that stand above all rooms, by their verbs; see `keras_preact.__main__`."""
