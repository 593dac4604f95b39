//! The wire types, generated from `proto/`. Their documentation is in the .proto files.
//!
//! Nothing here has behaviour. `api`, `participant` and `store` translate between these and the domain's own types;
//! no other module sees them.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

/// Exact amounts on the wire.
pub mod money {
    pub mod v1 {
        tonic::include_proto!("causeway.money.v1");
    }
}
/// What the gateway serves.
pub mod gateway {
    pub mod v1 {
        tonic::include_proto!("causeway.gateway.v1");
    }
}
/// What a partner network serves.
pub mod participant {
    pub mod v1 {
        tonic::include_proto!("causeway.participant.v1");
    }
}
/// The mock partner's controls.
pub mod mock {
    pub mod v1 {
        tonic::include_proto!("causeway.mock.v1");
    }
}
/// What the gateway keeps on disk.
pub mod store {
    pub mod v1 {
        tonic::include_proto!("causeway.store.v1");
    }
}
/// Google's annotations, needed by the descriptors only.
pub mod google {
    pub mod api {
        tonic::include_proto!("google.api");
    }
}

/// The encoded `FileDescriptorSet` of everything public, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/causeway.bin"));

/// Server reflection that lists these services and nothing else, and knows the types of errors' details, so that tools
/// can print them.
pub fn reflection(services: &[&'static str]) -> tonic_reflection::server::Builder<'static> {
    let mut builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    for service in services {
        builder = builder.with_service_name(*service);
    }
    builder
}
