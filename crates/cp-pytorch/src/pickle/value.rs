//! What a pickle consists of once it has been read.

use std::rc::Rc;

use super::globals::Global;
use crate::dtype::Dtype;
use crate::tensor::Layout;

/// A value: itself, or the number of an object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A number of more than 64 bits, as its bytes.
    Long(Rc<[u8]>),
    Float(f64),
    Text(Rc<str>),
    /// Bytes, which nothing here needs.
    Bytes,
    Object(u32),
}

/// What may be referred to from several places, and changed.
#[derive(Debug)]
pub(crate) enum Object {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    /// In the order in which it was filled; of two entries of a key the later one counts.
    Dict(Vec<(Value, Value)>),
    Global(Global),
    Storage(Storage),
    Tensor(Tensor),
    /// What only code could make, by the name of its class.
    Opaque(Rc<str>),
    /// A tensor of a kind that is not read: what it is, and what to do about it in Python.
    Refused(&'static str, &'static str),
}

/// Memory that tensors are views of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Storage {
    /// By what it is found in the file.
    pub(crate) key: Rc<str>,
    /// `None` of untyped bytes.
    pub(crate) dtype: Option<Dtype>,
    /// Elements, or bytes where it is untyped.
    pub(crate) count: u64,
    /// First element and number of elements of the part of the storage that this is, in the format before 1.6.
    pub(crate) part: Option<[usize; 2]>,
}

/// A tensor: which elements of which storage.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) storage: Storage,
    pub(crate) dtype: Dtype,
    pub(crate) layout: Layout,
}

/// All objects of a pickle, side by side.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    objects: Vec<Object>,
    /// Every storage that occurs, for the format that puts them one behind the other.
    pub(crate) storages: Vec<Storage>,
}

impl Heap {
    pub(crate) fn put(&mut self, object: Object) -> Value {
        // There are at most as many as opcodes.
        let id = u32::try_from(self.objects.len()).unwrap_or(u32::MAX);
        self.objects.push(object);
        Value::Object(id)
    }

    pub(crate) fn get(&self, value: &Value) -> Option<&Object> {
        match value {
            Value::Object(id) => self.objects.get(*id as usize),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, value: &Value) -> Option<&mut Object> {
        match value {
            Value::Object(id) => self.objects.get_mut(*id as usize),
            _ => None,
        }
    }

    /// The entries of a dict.
    pub(crate) fn dict(&self, value: &Value) -> Option<&[(Value, Value)]> {
        match self.get(value) {
            Some(Object::Dict(entries)) => Some(entries),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub(crate) fn items(&self, value: &Value) -> Option<&[Value]> {
        match self.get(value) {
            Some(Object::Tuple(items) | Object::List(items)) => Some(items),
            _ => None,
        }
    }

    /// What a value is, in messages.
    pub(crate) fn kind(&self, value: &Value) -> String {
        match (value, self.get(value)) {
            (_, Some(Object::Opaque(class))) => format!("an object of `{class}`"),
            (_, Some(Object::Global(global))) => format!("`{}` itself", global.name()),
            (_, Some(Object::Tensor(_))) => "a tensor".into(),
            (_, Some(Object::Refused(what, _))) => (*what).into(),
            (_, Some(Object::Tuple(_))) => "a tuple".into(),
            (_, Some(Object::List(_))) => "a list".into(),
            (_, Some(Object::Dict(_))) => "a dict".into(),
            (_, Some(Object::Storage(_))) => "a storage".into(),
            (Value::None, _) => "None".into(),
            (Value::Text(_), _) => "a text".into(),
            (Value::Bytes, _) => "bytes".into(),
            _ => "a number".into(),
        }
    }
}
