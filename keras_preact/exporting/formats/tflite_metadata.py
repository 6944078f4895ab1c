"""TFLite Metadata: description, input range and class names, for apps that load a .tflite file.

The format is that of TFLite Support and MediaPipe, metadata_schema.fbs 1.0.0: a FlatBuffer
inside the model's, and files in a zip archive at its end.
"""

import collections
import io
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_preact.exporting.formats import preprocessing_record
from keras_preact.exporting.formats.flatbuffer import pack, unpack
from keras_preact.layers import Preprocessing

BUFFER = "TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS = "labels.txt"


def _table(name, fields):
    names = fields.split()
    return collections.namedtuple(name, names, defaults=[None] * len(names))


# The schema identifies fields by position; those after the last one in use are left out.
_Model = _table(
    "_Model",
    "name description version subgraphs author license associated_files min_parser_version",
)
_Subgraph = _table("_Subgraph", "name description inputs outputs")
_Tensor = _table(
    "_Tensor", "name description dimension_names content process_units stats associated_files"
)
_Content = _table("_Content", "type properties")
_FeatureProperties = _table("_FeatureProperties", "")
_ImageProperties = _table("_ImageProperties", "color_space")
_ProcessUnit = _table("_ProcessUnit", "type options")
_Normalization = _table("_Normalization", "mean std")
_Stats = _table("_Stats", "max min")
_File = _table("_File", "name description type")

_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION = 1
_UNKNOWN_FILE, _TENSOR_AXIS_LABELS = 0, 2
_UNKNOWN, _RGB, _GRAYSCALE = 0, 1, 2


def add_metadata(model: bytes, name: str, description: str, preprocessing: Preprocessing) -> bytes:
    """Returns a TFLite file with TFLite Metadata, and with two files in a zip archive at its end.

    They are labels.txt and preprocessing.json, which says how an image file must be resized.

    The file's one input must be images (batch, height, width, channels) in 0 to 255,
    which the model itself normalizes, its one output probabilities (batch, classes).
    NormalizationOptions tell callers what they must do themselves, so they say mean 0, std 1;
    the mean and std that the model uses are in the description of the input.

    Args:
        model: a TFLite file without metadata.
        name: of the model.
        description: of the model.
        preprocessing: the file preprocessing.json; its class names are the lines of labels.txt.

    Raises:
        ValueError: if the name of a class is blank or not a single line.
    """
    for class_name in preprocessing.class_names:
        if class_name.splitlines() != [class_name] or class_name.isspace():
            raise ValueError(
                f"The name of a class must be a single line and not blank, as it becomes a line "
                f"of {LABELS}. Received: {class_name!r}"
            )
    subgraph = _Subgraph(
        inputs=[_images(preprocessing.mean, preprocessing.std)], outputs=[_probabilities()]
    )
    record = _File(preprocessing_record.FILE, "How an image file becomes the input.", _UNKNOWN_FILE)
    metadata = _Model(
        name=name,
        description=description,
        subgraphs=[subgraph],
        associated_files=[record],
        min_parser_version="1.0.0",
    )
    builder = flatbuffers.Builder()
    builder.Finish(_pack(builder, metadata), IDENTIFIER)
    labels = "".join(f"{class_name}\n" for class_name in preprocessing.class_names)
    files = {
        LABELS: labels,
        preprocessing_record.FILE: preprocessing_record.to_json(preprocessing),
    }
    return _append(_insert(model, builder.Output()), files)


def _images(mean, std):
    color_space = {1: _GRAYSCALE, 3: _RGB}.get(len(mean), _UNKNOWN)
    values = [", ".join(f"{value:.6g}" for value in values) for values in (mean, std)]
    return _Tensor(
        name="images",
        description=(
            "Images (batch, height, width, channels) as they are, in 0 to 255. The model itself "
            "normalizes each channel, (image - mean) / std, with the statistics of its training "
            f"images: mean {values[0]}; std {values[1]}."
        ),
        content=_Content(_IMAGE_PROPERTIES, _ImageProperties(color_space)),
        # One value applies to all channels.
        process_units=[_ProcessUnit(_NORMALIZATION, _Normalization(_float(0), _float(1)))],
        stats=_Stats(max=_float(255), min=_float(0)),
    )


def _probabilities():
    return _Tensor(
        name="probabilities",
        description="Probabilities (batch, classes), by label.",
        content=_Content(_FEATURE_PROPERTIES, _FeatureProperties()),
        stats=_Stats(max=_float(1), min=_float(0)),
        associated_files=[_File(LABELS, "The name of each class, by label.", _TENSOR_AXIS_LABELS)],
    )


def _float(value):
    return np.array([value], np.float32)


def _pack(builder, value):
    """Writes a string, floats, a list of tables or a table, and returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    # FlatBuffers do not nest: the parts must be written before the whole is begun.
    packed = [v if isinstance(v, int | None) else _pack(builder, v) for v in value]
    if isinstance(value, list):
        return _pack_list(builder, packed)
    builder.StartObject(len(packed))
    for slot, (field, written) in enumerate(zip(value, packed, strict=True)):
        if isinstance(field, int):
            builder.PrependUint8Slot(slot, field, 0)
        elif field is not None:
            builder.PrependUOffsetTRelativeSlot(slot, written, 0)
    return builder.EndObject()


def _pack_list(builder, offsets):
    size = flatbuffers.number_types.UOffsetTFlags.bytewidth
    builder.StartVector(size, len(offsets), size)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _insert(file, metadata):
    model = unpack(file)
    model.buffers.append(schema.BufferT(np.frombuffer(metadata, np.uint8)))
    entry = schema.MetadataT(BUFFER, len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]
    return pack(model)


def _append(model, files):
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, contents in files.items():
            # ZipInfo dates the entry 1980, so that equal exports are equal files.
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, contents)
    return stream.getvalue()
