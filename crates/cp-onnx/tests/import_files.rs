//! Every model of `exported`, `edge` and `third-party` that consists of known ops equals its reference; the others stand in `import.toml`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod import_support;

#[test]
fn every_model_equals_its_reference() {
    import_support::cases::files(&|network, inputs| {
        network.eval(inputs).map_err(|error| error.to_string())
    });
}
