//! Numbers of files that may be NaN or infinite, which JSON has no numbers for: written as their names, and read back.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() { to.serialize_f64(*value) } else { to.serialize_str(&value.to_string()) }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(f64),
        Name(String),
    }
    match Either::deserialize(from)? {
        Either::Number(value) => Ok(value),
        Either::Name(name) => match name.as_str() {
            "NaN" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            other => Err(D::Error::custom(format!("'{other}' is no number"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct One {
        #[serde(with = "super")]
        value: f64,
    }

    #[test]
    fn every_number_survives_the_round_trip() {
        for value in [0.25, -1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let text = serde_json::to_string(&One { value }).unwrap();
            let read: One = serde_json::from_str(&text).unwrap();
            assert_eq!(read.value.to_string(), value.to_string(), "{text}");
        }
        assert!(serde_json::from_str::<One>(r#"{"value": "many"}"#).is_err());
    }
}
