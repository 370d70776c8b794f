//! Writes `src/generated/` of ringcall-peers from `schema/`, with the generators that each system
//! offers as a crate. `regenerate` runs it and says what must be installed.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use buffa_codegen::{BytesRepr, CodeGenConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let peers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let (schema, generated) = (peers.join("schema"), peers.join("src/generated"));
    let proto = schema.join("echo.proto");

    let tonic = generated.join("tonic");
    fs::create_dir_all(&tonic)?;
    // `Bytes` in place of `Vec<u8>`: a body is a slice of what was received, without a copy.
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(&tonic)
        .compile_protos(&[&proto], &[&schema])?;

    let connectrpc = generated.join("connectrpc");
    fs::create_dir_all(&connectrpc)?;
    let mut messages = CodeGenConfig::default();
    // As above: `Bytes` in place of `Vec<u8>`.
    messages.bytes_fields = vec![(".".to_owned(), BytesRepr::Bytes)];
    connectrpc_build::Config::new()
        .files(&[&proto])
        .includes(&[&schema])
        .buffa_config(messages)
        // The bench speaks binary protobuf only.
        .generate_json(false)
        .emit_rerun_directives(false)
        .include_file("mod.rs")
        .out_dir(&connectrpc)
        .compile()?;

    let capnp = generated.join("capnp");
    fs::create_dir_all(&capnp)?;
    capnpc::CompilerCommand::new()
        .src_prefix(&schema)
        .file(schema.join("echo.capnp"))
        .default_parent_module(vec!["generated".to_owned(), "capnp".to_owned()])
        .output_path(&capnp)
        .run()?;

    volo_build::Builder::thrift()
        .add_service(schema.join("echo.thrift"))
        .out_dir(generated.join("volo"))
        .filename("echo.rs".into())
        .write()?;
    cut_router(&generated.join("volo/echo.rs"))
}

/// Cuts out of volo's code what serves several services on one port: the bench has one, and this
/// part alone has unsafe code in it, which stands nowhere in this crate.
fn cut_router(file: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let missing = || format!("{} is not as expected: adapt `cut_router`", file.display());
    let router = text.rfind("for EchoServer<T>").ok_or_else(missing)?;
    let begin = text[..router].rfind("        impl<T>").ok_or_else(missing)?;
    let len = text[begin..].find("        pub struct MkEchoGenericClient").ok_or_else(missing)?;
    let text = text[..begin].to_owned() + &text[begin + len..];
    if text.contains("unsafe {") {
        return Err(missing().into());
    }
    Ok(fs::write(file, text)?)
}
