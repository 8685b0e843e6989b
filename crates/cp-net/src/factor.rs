//! Factorized layers as data: their [forms](form), [ranks](rank), the small ops that they are made of ([parts](parts)), which
//! channels go where ([orders](order)), and the [record](record) that is kept of one.

pub(crate) mod form;
pub(crate) mod order;
pub(crate) mod parts;
pub(crate) mod rank;
pub(crate) mod record;
