//! Every call there is, by reflection: its descriptor, a request made up by its fields' names, and its answer in bytes.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use punchline_tests::api::Api;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// How deep requests are filled.
const DEPTH_MAX: usize = 4;
/// Messages read of a stream that answers; one that says nothing more for a second is left.
const ANSWERS_MAX: usize = 20;

/// All methods of `punchline.v1`, as the server itself describes them.
pub async fn methods(channel: Channel) -> Vec<MethodDescriptor> {
    let mut pool = DescriptorPool::new();
    let services = match ask(&channel, MessageRequest::ListServices(String::new())).await {
        MessageResponse::ListServicesResponse(list) => list.service,
        other => panic!("{other:?}"),
    };
    let own: Vec<String> = services.into_iter().map(|s| s.name).filter(|n| n.starts_with("punchline.v1.")).collect();
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    let mut wanted: Vec<MessageRequest> = own.iter().cloned().map(MessageRequest::FileContainingSymbol).collect();
    while let Some(request) = wanted.pop() {
        let found = match ask(&channel, request).await {
            MessageResponse::FileDescriptorResponse(found) => found.file_descriptor_proto,
            other => panic!("{other:?}"),
        };
        for encoded in found {
            let file = prost_types::FileDescriptorProto::decode(encoded.as_slice()).expect("a file");
            if seen.insert(file.name().to_owned()) {
                wanted.extend(file.dependency.iter().cloned().map(MessageRequest::FileByFilename));
                files.push(file);
            }
        }
    }
    pool.add_file_descriptor_protos(files).expect("the files go together");
    own.iter()
        .flat_map(|name| pool.get_service_by_name(name).expect("described").methods().collect::<Vec<_>>())
        .collect()
}

async fn ask(channel: &Channel, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let asked = tokio_stream::once(request);
    let answer = ServerReflectionClient::new(channel.clone()).server_reflection_info(asked).await.expect("reflection");
    let first: ServerReflectionResponse = answer.into_inner().message().await.expect("an answer").expect("an answer");
    first.message_response.expect("a response")
}

/// A request of this kind in which every field has a value: `text` gives those of strings, by field.
pub fn filled(
    descriptor: &MessageDescriptor,
    text: &dyn Fn(&FieldDescriptor) -> String,
    number: i64,
) -> DynamicMessage {
    fill(descriptor, text, number, DEPTH_MAX)
}

fn fill(
    of: &MessageDescriptor,
    text: &dyn Fn(&FieldDescriptor) -> String,
    number: i64,
    depth: usize,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    if of.full_name() == "google.protobuf.Timestamp" {
        message.set_field_by_name("seconds", Value::I64(4_000_000_000));
        return message;
    }
    if of.full_name() == "google.protobuf.FieldMask" {
        return message;
    }
    for field in of.fields() {
        // The last of a oneof is what counts; the first is as good.
        let is_taken = field.containing_oneof().is_some_and(|one| one.fields().any(|f| message.has_field(&f)));
        if is_taken || of.full_name().starts_with("google.") {
            continue;
        }
        let value = if field.is_map() {
            continue;
        } else {
            match field.kind() {
                Kind::Message(_) if depth == 0 => continue,
                Kind::Message(inner) => Value::Message(fill(&inner, text, number, depth - 1)),
                Kind::String => Value::String(text(&field)),
                Kind::Bytes => Value::Bytes(Bytes::new()),
                Kind::Bool if field.name() == "preview" || field.name() == "validate_only" => continue,
                Kind::Bool => Value::Bool(true),
                Kind::Double => Value::F64(1.0),
                Kind::Float => Value::F32(1.0),
                Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(1),
                Kind::Uint32 | Kind::Fixed32 => Value::U32(1),
                Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(1),
                Kind::Uint64 | Kind::Fixed64 => Value::U64(number.unsigned_abs()),
                Kind::Enum(kind) => Value::EnumNumber(kind.values().nth(1).map_or(0, |value| value.number())),
            }
        };
        let value = if field.is_list() { Value::List(vec![value]) } else { value };
        message.set_field(&field, value);
    }
    message
}

/// What a call answered: all the bytes of its messages, and how it ended.
pub struct Answered {
    pub bytes: Vec<u8>,
    pub status: Option<Status>,
}

impl Answered {
    /// Whether any of it, details and metadata included, holds these bytes.
    pub fn holds(&self, needle: &str) -> bool {
        let status = self.status.as_ref();
        let said = status.map(|s| format!("{s:?}")).unwrap_or_default();
        let details = status.map(|s| s.details().to_vec()).unwrap_or_default();
        let holds = |hay: &[u8]| hay.windows(needle.len()).any(|window| window == needle.as_bytes());
        holds(&self.bytes) || holds(said.as_bytes()) || holds(&details)
    }
}

/// Makes a call with these metadata.
pub async fn call(
    api: &Api,
    method: &MethodDescriptor,
    request: &DynamicMessage,
    metadata: &[(&'static str, String)],
) -> Answered {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = path.parse().expect("a path");
    let mut grpc = tonic::client::Grpc::new(api.channel());
    grpc.ready().await.expect("the server listens");
    let message = Bytes::from(request.encode_to_vec());
    let mut request = Request::new(tokio_stream::once(message));
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().expect("a value"));
    }
    let mut bytes = Vec::new();
    let status = match grpc.streaming(request, path, Raw).await {
        Err(status) => Some(status),
        Ok(answer) => {
            let mut messages = answer.into_inner();
            let mut left = ANSWERS_MAX;
            loop {
                match tokio::time::timeout(std::time::Duration::from_secs(1), messages.message()).await {
                    Ok(Ok(Some(message))) if left > 0 => {
                        left -= 1;
                        bytes.extend(message);
                    }
                    Ok(Err(status)) => break Some(status),
                    _ => break None,
                }
            }
        }
    };
    Answered { bytes, status }
}

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
