//! What a test of a promise says aloud: its figure, or what this machine cannot do. `cargo xtask test` gathers both.

/// Prints the figure of a promise: `P5`, "exit noticed after …".
pub fn figure(promise: &str, text: &str) {
    println!("FIGURE {promise}: {text}");
}

/// Says that this machine cannot do what a test needs. It is counted, never passed over.
pub fn cannot(promise: &str, why: &str) {
    println!("CANNOT BE DONE HERE: {promise} {why}");
}
