//! Generates the client and the server of `tonic.rs`, from a description in Rust, so that no protoc is needed.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let method = |name: &str, route: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::HelloRequest")
            .output_type("crate::HelloReply")
            .codec_path("tonic_prost::ProstCodec")
    };
    let greeter = Service::builder()
        .name("Greeter")
        .package("mainspring.example")
        .method(method("say_hello", "SayHello").comment("Greets once.").build())
        .method(method("say_hellos", "SayHellos").comment("Greets many times.").server_streaming().build())
        .method(
            method("chat", "Chat")
                .comment("Greets everybody who comes.")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .build();
    Builder::new().compile(&[greeter]);
}
