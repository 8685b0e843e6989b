//! Tensors of the file as constants.

use std::path::Path;

use crate::Float;
use crate::error::TensorError;
use crate::import::value::{Data, Num};
use crate::proto::{Message, tensor};

/// The number of `BOOL` in `TensorProto.DataType`.
pub(crate) const BOOL: i64 = 9;

/// The values of `message`.
pub(crate) fn read(message: &Message, folder: Option<&Path>) -> Result<Data, TensorError> {
    let number = tensor::number(message);
    if Float::by_number(number).is_some() {
        return Ok(Data::Floats(tensor::array(message, |place| place.read(folder))?.into_shared()));
    }
    let whole = tensor::whole(message, |place| place.read(folder))?;
    Ok(if number == BOOL {
        Data::Bools(whole.mapv(|value| value != 0))
    } else {
        Data::Ints(whole.mapv(Num::Is))
    })
}
