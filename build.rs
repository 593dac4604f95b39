//! Compiles `proto/` with protox (no `protoc` needed) into Rust types and into the descriptor set that server
//! reflection serves.

use std::{env, fs, path::PathBuf};

const ROOT: &str = "proto";
const FILES: [&str; 9] = [
    "causeway/money/v1/money.proto",
    "causeway/gateway/v1/party.proto",
    "causeway/gateway/v1/quote_service.proto",
    "causeway/gateway/v1/payment_service.proto",
    "causeway/gateway/v1/rate_service.proto",
    "causeway/gateway/v1/decision_service.proto",
    "causeway/participant/v1/participant_service.proto",
    "causeway/mock/v1/mock_service.proto",
    "causeway/store/v1/record.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The store's records are nobody's API: they are compiled, but not shown by reflection. Encoded by protox itself,
    // which keeps options such as field_behavior.
    let public = compile(&FILES[..FILES.len() - 1])?.encode_file_descriptor_set();
    fs::write(out.join("causeway.bin"), public)?;
    let all = compile(&FILES)?.file_descriptor_set();
    tonic_prost_build::configure()
        .build_transport(true)
        .disable_comments(["."])
        // A request waits inside its call's future for as long as the payment does; a thin one leaves room for more.
        .boxed(".causeway.gateway.v1.CreatePaymentRequest.payment")
        .compile_fds(all)?;
    Ok(())
}

fn compile(files: &[&str]) -> Result<protox::Compiler, Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        compiler.open_file(PathBuf::from(ROOT).join(file))?;
    }
    Ok(compiler)
}
