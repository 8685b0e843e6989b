//! The classes and functions that a pickle may name, and what they mean here. Nothing is imported and nothing runs: what is not in this
//! list is a class by its name, and what it makes is opaque.

use std::rc::Rc;

use super::PickleProblem;
use super::value::{Heap, Object, Storage, Tensor, Value};
use crate::dtype::Dtype;
use crate::tensor::Layout;

/// A class or a function.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`: storage, first element, sizes, strides, and what training needs.
    Tensor,
    /// `torch._utils._rebuild_tensor_v3`: the same of an untyped storage, with the type as the seventh.
    TypedTensor,
    /// `torch._utils._rebuild_parameter` and `_rebuild_parameter_with_state`: the tensor, and what training needs.
    Parameter,
    /// A storage class: `torch.FloatStorage`, or without a type `torch.storage.UntypedStorage`.
    Storage(Option<Dtype>),
    /// `torch.Size`: a tuple.
    Size,
    /// `torch.float32` and the like.
    Dtype(Dtype),
    /// A function that makes tensors which are not read: what they are, and what to do about it.
    Refused(&'static str, &'static str),
    /// Anything else, by its full name: `argparse.Namespace`, `numpy.core.multiarray.scalar`, a class of the user's own.
    Class(Rc<str>),
}

impl Global {
    /// In messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            Global::Class(name) => name,
            Global::OrderedDict => "collections.OrderedDict",
            Global::Storage(_) => "a storage class",
            Global::Size => "torch.Size",
            Global::Dtype(_) => "a dtype",
            Global::Tensor | Global::TypedTensor | Global::Parameter | Global::Refused(..) => {
                "a function of torch._utils"
            }
        }
    }
}

/// What `module.name` is.
pub(super) fn named(module: &str, name: &str) -> Global {
    let known = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch", "Size") => Some(Global::Size),
        ("torch", name) if Dtype::named(name).is_some() => Dtype::named(name).map(Global::Dtype),
        ("torch" | "torch.storage" | "torch.cuda", "UntypedStorage") => Some(Global::Storage(None)),
        ("torch.storage", "TypedStorage" | "_TypedStorage") => Some(Global::Storage(None)),
        ("torch" | "torch.cuda", class) => {
            Dtype::of_storage(class).map(|dtype| Global::Storage(Some(dtype)))
        }
        ("torch._utils", function) => match function {
            "_rebuild_tensor" | "_rebuild_tensor_v2" => Some(Global::Tensor),
            "_rebuild_tensor_v3" => Some(Global::TypedTensor),
            "_rebuild_parameter" | "_rebuild_parameter_with_state" => Some(Global::Parameter),
            "_rebuild_sparse_tensor" => {
                Some(Global::Refused("a sparse tensor", "save it dense (tensor.to_dense())"))
            }
            "_rebuild_qtensor" => Some(Global::Refused(
                "a quantized tensor",
                "save it dequantized (tensor.dequantize())",
            )),
            "_rebuild_nested_tensor" => {
                Some(Global::Refused("a nested tensor", "save its parts (tensor.unbind())"))
            }
            "_rebuild_meta_tensor_no_storage" => Some(Global::Refused(
                "a tensor on the device 'meta', which has no values",
                "load the weights before the model is saved",
            )),
            _ => None,
        },
        _ => None,
    };
    known.unwrap_or_else(|| Global::Class(Rc::from(format!("{module}.{name}"))))
}

/// What a call of `global` makes.
pub(super) fn call(
    heap: &mut Heap,
    global: &Global,
    items: &[Value],
) -> Result<Value, PickleProblem> {
    let object = match global {
        Global::OrderedDict => ordered_dict(heap, items)?,
        Global::Size => match items.first() {
            Some(sizes) if heap.items(sizes).is_some() => return Ok(sizes.clone()),
            _ => Object::Tuple(items.to_vec()),
        },
        Global::Tensor | Global::TypedTensor => tensor(heap, global, items)?,
        Global::Parameter => match items.first() {
            Some(data) => return Ok(data.clone()),
            None => return Err(wrong("a parameter", "its tensor")),
        },
        Global::Refused(what, way_out) => Object::Refused(what, way_out),
        Global::Class(name) => Object::Opaque(name.clone()),
        Global::Storage(_) | Global::Dtype(_) => Object::Opaque(Rc::from(global.name())),
    };
    Ok(heap.put(object))
}

fn wrong(what: &'static str, expected: &'static str) -> PickleProblem {
    PickleProblem::Argument { what, expected }
}

/// Empty, or from a list of pairs, as Python 2 wrote it.
fn ordered_dict(heap: &Heap, items: &[Value]) -> Result<Object, PickleProblem> {
    let pairs = match items {
        [] => &[],
        [list, ..] => {
            heap.items(list).ok_or_else(|| wrong("an ordered dict", "a list of pairs"))?
        }
    };
    let pair = |pair: &Value| match heap.items(pair) {
        Some([key, value]) => Ok((key.clone(), value.clone())),
        _ => Err(wrong("an ordered dict", "pairs")),
    };
    Ok(Object::Dict(pairs.iter().map(pair).collect::<Result<_, _>>()?))
}

/// `(storage, offset, sizes, strides, requires_grad, hooks, …)`.
fn tensor(heap: &Heap, global: &Global, items: &[Value]) -> Result<Object, PickleProblem> {
    const EXPECTED: &str = "storage, first element, sizes and strides";
    let [storage, Value::Int(offset), sizes, strides, rest @ ..] = items else {
        return Err(wrong("a tensor", EXPECTED));
    };
    let storage = match heap.get(storage) {
        Some(Object::Storage(storage)) => storage.clone(),
        // Of a class that is not known: so is the tensor.
        Some(Object::Opaque(class)) => return Ok(Object::Opaque(class.clone())),
        _ => return Err(wrong("a tensor", EXPECTED)),
    };
    let numbers = |value: &Value| -> Option<Vec<i64>> {
        let number = |item: &Value| match item {
            Value::Int(number) => Some(*number),
            _ => None,
        };
        heap.items(value)?.iter().map(number).collect()
    };
    let (Some(sizes), Some(strides)) = (numbers(sizes), numbers(strides)) else {
        return Err(wrong("a tensor", EXPECTED));
    };
    let (dtype, metadata) = if *global == Global::TypedTensor {
        match rest.get(2).and_then(|value| heap.get(value)) {
            Some(Object::Global(Global::Dtype(dtype))) => (Some(*dtype), rest.get(3)),
            _ => return Err(wrong("a tensor of an untyped storage", "its dtype")),
        }
    } else {
        (storage.dtype, rest.get(2))
    };
    // Bits that say the values are to be negated or conjugated.
    let entries = metadata.and_then(|value| heap.dict(value)).unwrap_or_default();
    if entries.iter().any(|(_, value)| *value == Value::Bool(true)) {
        let way_out = "save it as it is (tensor.resolve_neg().resolve_conj())";
        return Ok(Object::Refused("a negated or conjugated view", way_out));
    }
    let Some(dtype) = dtype else { return Err(wrong("a tensor", "a storage with a type")) };
    let layout = Layout::new(*offset, &sizes, &strides)
        .map_err(|_| wrong("a tensor", "as many sizes as strides, none of them negative"))?;
    Ok(Object::Tensor(Tensor { storage, dtype, layout }))
}

/// What a persistent id stands for: `("storage", class, key, device, elements)`, before 1.6 with a view behind; or `("module", class, …)`,
/// the class of a whole module with its source.
pub(super) fn persistent(heap: &mut Heap, id: &Value) -> Result<Value, PickleProblem> {
    const EXPECTED: &str = "class, key, device and number of elements";
    let items = heap.items(id).ok_or_else(|| wrong("a persistent id", "a tuple"))?;
    let (kind, class, rest) = match items {
        [Value::Text(kind), class, rest @ ..] => (&**kind, class, rest),
        _ => return Err(wrong("a persistent id", "its kind")),
    };
    if kind == "module" {
        return Ok(class.clone());
    }
    let dtype = match (kind, heap.get(class)) {
        ("storage", Some(Object::Global(Global::Storage(dtype)))) => *dtype,
        ("storage", Some(Object::Global(Global::Class(name)))) => {
            let opaque = Object::Opaque(name.clone());
            return Ok(heap.put(opaque));
        }
        _ => return Err(wrong("a storage", EXPECTED)),
    };
    let [key, _device, Value::Int(count), view @ ..] = rest else {
        return Err(wrong("a storage", EXPECTED));
    };
    let key: Rc<str> = match key {
        Value::Text(key) => key.clone(),
        Value::Int(key) => Rc::from(key.to_string()),
        _ => return Err(wrong("a storage", EXPECTED)),
    };
    let count = u64::try_from(*count).map_err(|_| wrong("a storage", EXPECTED))?;
    let part = match view.first() {
        None | Some(Value::None) => None,
        // Its own key, its first element in the storage that is written, its number of elements.
        Some(view) => match heap.items(view) {
            Some([_, Value::Int(first), Value::Int(length)]) => {
                let natural = |number: i64| {
                    let expected = "numbers that are not negative";
                    usize::try_from(number).map_err(|_| wrong("a view of a storage", expected))
                };
                Some([natural(*first)?, natural(*length)?])
            }
            _ => return Err(wrong("a view of a storage", "key, first element, elements")),
        },
    };
    let storage = Storage { key, dtype, count, part };
    heap.storages.push(storage.clone());
    Ok(heap.put(Object::Storage(storage)))
}
