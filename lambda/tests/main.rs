//! The functions without Lambda around them.

use std::process::Command;

#[test]
fn a_function_without_a_runtime_ends_with_an_error() {
    for function in [
        env!("CARGO_BIN_EXE_blackwater-extract"),
        env!("CARGO_BIN_EXE_blackwater-transform"),
        env!("CARGO_BIN_EXE_blackwater-load"),
    ] {
        let variables = [
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
            ("AWS_LAMBDA_FUNCTION_NAME", "f"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ];
        let ended = Command::new(function).env_clear().envs(variables).output();
        assert!(!ended.as_ref().is_ok_and(|ended| ended.status.success()), "{function}: {ended:?}");
    }
}
