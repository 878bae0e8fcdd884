"""The plugin for napari: scans as layers, and a widget that restores a layer.

- `layers.py` turns volumes into layers and back, on arrays; `restoring.py` is what the widget runs.
- `reader.py` and `widget.py` are what `napari.yaml` names; only the widget imports napari.

napari comes with the extra `napari`; Qt is the user's choice.
"""
