"""TFLite files as objects, by the schema that LiteRT comes with."""

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_OPERATIONS = {code: name for name, code in vars(schema.BuiltinOperator).items()}


def unpack(file: bytes) -> schema.ModelT:
    """Returns a TFLite file as an object."""
    return schema.ModelT.InitFromPackedBuf(file)


def pack(model: schema.ModelT) -> bytes:
    """Returns the contents of a TFLite file."""
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def operation(model: schema.ModelT, operator: schema.OperatorT) -> str:
    """The name of an operation, such as CONV_2D."""
    return _OPERATIONS[model.operatorCodes[operator.opcodeIndex].builtinCode]


def is_constant(model: schema.ModelT, tensor: schema.TensorT) -> bool:
    """Whether the file holds the value of a tensor, such as a weight."""
    return model.buffers[tensor.buffer].data is not None
