//! What a `ValueInfoProto` says of a value: its type and its sizes.

use crate::Float;
use crate::import::value::Kind;
use crate::proto::{self, Message};
use crate::wire::Bytes;

/// One size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Size {
    Is(usize),
    Called(String),
    Open,
}

/// Type and sizes of a tensor.
#[derive(Debug, Clone)]
pub(crate) struct Info {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// `None` where even the number of axes is open.
    pub(crate) sizes: Option<Vec<Size>>,
}

/// The message in field `number`, which is not taken apart otherwise.
fn inner(message: &Message, number: u32) -> Option<Message> {
    let bytes: &Bytes = message.all_bytes(number).last()?;
    Message::decode(bytes.clone(), proto::Kind::Leaf).ok()
}

/// `None` where the value is no tensor.
pub(crate) fn info(message: &Message) -> Option<Info> {
    let tensor = inner(&inner(message, 2)?, 1)?;
    let kind = match Float::by_number(tensor.int(1).unwrap_or(0)) {
        Some(_) => Kind::Float,
        None => Kind::Other,
    };
    let sizes = inner(&tensor, 2).map(|shape| {
        let dims =
            shape.all_bytes(1).map(|bytes| Message::decode(bytes.clone(), proto::Kind::Leaf));
        dims.map(|dim| {
            let Ok(dim) = dim else { return Size::Open };
            let symbol = dim.string(2);
            match dim.int(1).and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0) {
                Some(size) => Size::Is(size),
                None if symbol.is_empty() => Size::Open,
                None => Size::Called(symbol),
            }
        })
        .collect()
    });
    Some(Info { name: message.string(1), kind, sizes })
}

impl Info {
    /// In messages.
    pub(crate) fn text(&self) -> String {
        let Some(sizes) = &self.sizes else { return "?".into() };
        let sizes = sizes.iter().map(|size| match size {
            Size::Is(size) => size.to_string(),
            Size::Called(name) => name.clone(),
            Size::Open => "?".into(),
        });
        format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
    }

    /// The sizes behind the batch axis, as far as they are known; `None` where there is no such axis, or the axes are not known.
    pub(crate) fn inner(&self) -> Option<Vec<Option<usize>>> {
        let (_, inner) = self.sizes.as_ref()?.split_first()?;
        let known = |size: &Size| if let Size::Is(size) = size { Some(*size) } else { None };
        Some(inner.iter().map(known).collect())
    }

    /// The size of the batch, where it is fixed.
    pub(crate) fn batch(&self) -> Option<usize> {
        match self.sizes.as_ref()?.first()? {
            Size::Is(size) => Some(*size),
            _ => None,
        }
    }
}
