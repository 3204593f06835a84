"""The memory as a module: modes, streams, navigation, context, controller."""
