//! What a caller is told when a request fails: AWS's code, its status, and a sentence to act on.
//!
//! Rooms keep their own error enums for the developer; `told()` on those makes one of these for the user. How it looks
//! on the wire depends on the service: [`ApiError::s3_control`], [`ApiError::s3`], [`ApiError::lambda`],
//! [`ApiError::json`]; and, for clients of services that there are not here, [`ApiError::query`], [`ApiError::ec2`],
//! [`ApiError::typed_json`].

use std::borrow::Cow;

use http::StatusCode;

use crate::http::{RequestId, Response};

/// An error as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    /// AWS's code, `NoSuchJob` or `ResourceNotFoundException`.
    pub code: Cow<'static, str>,
    pub message: String,
    /// Further members of the error document, in order: Lambda's `Reason`, S3's `BucketName`.
    pub members: Vec<(&'static str, String)>,
    /// `Retry-After`, in seconds, where trying again then makes sense.
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), members: Vec::new(), retry_after_s: None }
    }

    pub fn with(mut self, member: &'static str, value: impl Into<String>) -> Self {
        self.members.push((member, value.into()));
        self
    }

    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

/// The namespace on every S3 Control document.
pub const S3_CONTROL_NAMESPACE: &str = "http://awss3control.amazonaws.com/doc/2018-08-20/";

impl ApiError {
    /// rest-xml with the `ErrorResponse` wrapper, as S3 Control answers. Source: S3 Batch spec 1.11.
    pub fn s3_control(&self, id: &RequestId) -> Response {
        let mut xml = crate::xml::Writer::document("ErrorResponse", Some(S3_CONTROL_NAMESPACE));
        xml.open("Error");
        xml.text("Code", &self.code);
        xml.text("Message", &self.message);
        for (name, value) in &self.members {
            xml.text(name, value);
        }
        xml.close();
        xml.text("RequestId", &id.0);
        xml.text("HostId", &id.host_id());
        Response::xml(self.status, xml.finish())
    }

    /// The bare `Error` document of S3.
    pub fn s3(&self, id: &RequestId) -> Response {
        let mut xml = crate::xml::Writer::document("Error", None);
        xml.text("Code", &self.code);
        xml.text("Message", &self.message);
        for (name, value) in &self.members {
            xml.text(name, value);
        }
        xml.text("RequestId", &id.0);
        xml.text("HostId", &id.host_id());
        Response::xml(self.status, xml.finish())
    }

    /// As the AWS query protocol and most of rest-xml have it: STS, IAM, SNS. Source: the Smithy page of awsQuery.
    pub fn query(&self, id: &RequestId) -> Response {
        let mut xml = crate::xml::Writer::document("ErrorResponse", None);
        xml.open("Error");
        // Whoever it lies with, it is the request that has to change: no client should send it again.
        xml.text("Type", "Sender");
        xml.text("Code", &self.code);
        xml.text("Message", &self.message);
        xml.close();
        xml.text("RequestId", &id.0);
        Response::xml(self.status, xml.finish())
    }

    /// As EC2 has it. Source: the Smithy page of ec2Query.
    pub fn ec2(&self, id: &RequestId) -> Response {
        let mut xml = crate::xml::Writer::document("Response", None);
        xml.open("Errors");
        xml.open("Error");
        xml.text("Code", &self.code);
        xml.text("Message", &self.message);
        xml.close();
        xml.close();
        xml.text("RequestID", &id.0);
        Response::xml(self.status, xml.finish())
    }

    /// As the services with JSON have it, those with `X-Amz-Target` and those with paths. Source: the Smithy pages of
    /// awsJson1_0, awsJson1_1 and restJson1.
    pub fn typed_json(&self) -> Response {
        let body = serde_json::json!({"__type": self.code, "message": self.message});
        Response::json(self.status, &body).with_header("x-amzn-errortype", &self.code)
    }

    /// Our own API's error: an object with `code`, `message` and `requestId`.
    pub fn json(&self, id: &RequestId) -> Response {
        let mut body = serde_json::Map::new();
        body.insert("code".into(), self.code.as_ref().into());
        body.insert("message".into(), self.message.clone().into());
        body.insert("requestId".into(), id.0.clone().into());
        for (name, value) in &self.members {
            body.insert((*name).into(), value.clone().into());
        }
        Response::json(self.status, &serde_json::Value::Object(body))
    }

    /// rest-json 1.0 as Lambda answers: the message under the key that AWS's model has for the code, and `Type` but for
    /// the codes that AWS sends without one. Typed SDKs read the modelled key alone. Source: Lambda spec 2.3.
    pub fn lambda(&self) -> Response {
        let mut body = serde_json::Map::new();
        let key = if CAPITAL_MESSAGE.contains(&&*self.code) { "Message" } else { "message" };
        body.insert(key.into(), self.message.clone().into());
        if !UNTYPED.contains(&&*self.code) {
            let kind = if self.status.is_server_error() { "Service" } else { "User" };
            body.insert("Type".into(), kind.into());
        }
        for (name, value) in &self.members {
            body.insert((*name).into(), value.clone().into());
        }
        let response = Response::json(self.status, &serde_json::Value::Object(body));
        let response = response.with_header("x-amzn-errortype", &self.code);
        match self.retry_after_s {
            Some(seconds) => response.with_header("retry-after", &seconds.to_string()),
            None => response,
        }
    }
}

/// Lambda's errors whose message has a capital letter in the model; those that are not raised here stand for the whole.
/// Every other code has `message`.
const CAPITAL_MESSAGE: [&str; 34] = [
    "AccessDeniedException",
    "CallbackTimeoutException",
    "CodeSigningConfigNotFoundException",
    "CodeVerificationFailedException",
    "DurableExecutionAlreadyStartedException",
    "EC2AccessDeniedException",
    "EC2ThrottledException",
    "EC2UnexpectedException",
    "EFSIOException",
    "EFSMountConnectivityException",
    "EFSMountFailureException",
    "EFSMountTimeoutException",
    "ENILimitReachedException",
    "InvalidCodeSignatureException",
    "InvalidRuntimeException",
    "InvalidSecurityGroupIDException",
    "InvalidSubnetIDException",
    "InvalidZipFileException",
    "KMSAccessDeniedException",
    "KMSDisabledException",
    "KMSInvalidStateException",
    "KMSNotFoundException",
    "NoPublishedVersionException",
    "RecursiveInvocationException",
    "ResourceInUseException",
    "ResourceNotFoundException",
    "S3FilesMountConnectivityException",
    "S3FilesMountFailureException",
    "S3FilesMountTimeoutException",
    "ServiceException",
    "SnapStartException",
    "SnapStartNotReadyException",
    "SnapStartTimeoutException",
    "SubnetIPAddressLimitReachedException",
];

/// Errors that Lambda's model does not know: those of its front door, and the checks that come before a function is
/// looked for.
const UNTYPED: [&str; 8] = [
    "ValidationException",
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnknownOperationException",
    "UnrecognizedClientException",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::Element;

    fn id() -> RequestId {
        RequestId("4442587f-b7d0-a2f9-0000-000000000000".to_owned())
    }

    #[test]
    fn an_error_looks_as_each_service_writes_it() {
        let error = ApiError::new(StatusCode::FORBIDDEN, "AccessDenied", "a < b").with("Region", "us-east-1");
        let s3 = Element::parse(&error.s3(&id()).body).unwrap();
        let control = Element::parse(&error.s3_control(&id()).body).unwrap();
        assert_eq!((s3.name.as_str(), control.name.as_str()), ("Error", "ErrorResponse"));
        let inner = control.child("Error").unwrap();
        for e in [&s3, inner] {
            assert_eq!(e.child_text("Code"), Some("AccessDenied"));
            assert_eq!(e.child_text("Message"), Some("a < b"));
            assert_eq!(e.child_text("Region"), Some("us-east-1"));
        }
        for e in [&s3, &control] {
            assert_eq!(e.child_text("RequestId"), Some(id().0.as_str()));
            assert_eq!(e.child_text("HostId"), Some(id().host_id().as_str()));
        }
    }

    #[test]
    fn an_error_for_a_client_of_another_service_is_in_the_form_that_it_parses() {
        let error = ApiError::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "a < b");
        let query = Element::parse(&error.query(&id()).body).unwrap();
        let inner = query.child("Error").unwrap();
        assert_eq!((query.name.as_str(), query.child_text("RequestId")), ("ErrorResponse", Some(id().0.as_str())));
        assert_eq!((inner.child_text("Type"), inner.child_text("Code")), (Some("Sender"), Some("NotImplemented")));
        let ec2 = Element::parse(&error.ec2(&id()).body).unwrap();
        let inner = ec2.child("Errors").and_then(|errors| errors.child("Error")).unwrap();
        assert_eq!((ec2.name.as_str(), ec2.child_text("RequestID")), ("Response", Some(id().0.as_str())));
        assert_eq!((inner.child_text("Code"), inner.child_text("Message")), (Some("NotImplemented"), Some("a < b")));
        let json = error.typed_json();
        let body: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(body, serde_json::json!({"__type": "NotImplemented", "message": "a < b"}));
        assert_eq!(
            (json.status.as_u16(), &json.headers["x-amzn-errortype"]),
            (501, &"NotImplemented".parse().unwrap())
        );
    }

    #[test]
    fn a_lambda_error_has_its_code_in_a_header_its_message_under_the_modelled_key_and_a_type_where_aws_sends_one() {
        // The table of Lambda spec 2.3, and what our front door says.
        for (code, status, key, kind) in [
            ("InvalidParameterValueException", 400, "message", Some("User")),
            ("InvalidRequestContentException", 400, "message", Some("User")),
            ("PolicyLengthExceededException", 400, "message", Some("User")),
            ("CodeStorageExceededException", 400, "message", Some("User")),
            ("ProvisionedConcurrencyConfigNotFoundException", 404, "message", Some("User")),
            ("ResourceConflictException", 409, "message", Some("User")),
            ("PreconditionFailedException", 412, "message", Some("User")),
            ("RequestTooLargeException", 413, "message", Some("User")),
            ("RequestEntityTooLargeException", 413, "message", Some("User")),
            ("SerializedRequestEntityTooLargeException", 413, "message", Some("User")),
            ("UnsupportedMediaTypeException", 415, "message", Some("User")),
            ("TooManyRequestsException", 429, "message", Some("User")),
            ("ResourceNotReadyException", 502, "message", Some("Service")),
            ("ValidationException", 400, "message", None),
            ("UnknownOperationException", 404, "message", None),
            ("InvalidSignatureException", 403, "message", None),
            ("AccessDeniedException", 403, "Message", None),
            ("ResourceNotFoundException", 404, "Message", Some("User")),
            ("ServiceException", 500, "Message", Some("Service")),
            ("EC2ThrottledException", 502, "Message", Some("Service")),
            ("KMSDisabledException", 502, "Message", Some("Service")),
            ("EFSIOException", 410, "Message", Some("User")),
            ("ENILimitReachedException", 502, "Message", Some("Service")),
            ("SnapStartNotReadyException", 409, "Message", Some("User")),
            ("InvalidRuntimeException", 502, "Message", Some("Service")),
            ("InvalidZipFileException", 502, "Message", Some("Service")),
            ("InvalidSubnetIDException", 502, "Message", Some("Service")),
            ("InvalidSecurityGroupIDException", 502, "Message", Some("Service")),
            ("ResourceInUseException", 400, "Message", Some("User")),
            ("RecursiveInvocationException", 400, "Message", Some("User")),
            ("NoPublishedVersionException", 400, "Message", Some("User")),
            ("CodeSigningConfigNotFoundException", 404, "Message", Some("User")),
        ] {
            let response = ApiError::new(StatusCode::from_u16(status).unwrap(), code, "m").lambda();
            assert_eq!(
                (response.status.as_u16(), &response.headers["x-amzn-errortype"]),
                (status, &code.parse().unwrap())
            );
            let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
            let mut wanted = serde_json::json!({key: "m"});
            if let Some(kind) = kind {
                wanted["Type"] = kind.into();
            }
            assert_eq!(body, wanted, "{code}");
        }
    }

    #[test]
    fn when_to_come_back_stands_in_a_header_where_that_makes_sense() {
        let throttled = || ApiError::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.");
        assert_eq!(throttled().with_retry_after(1).lambda().headers["retry-after"], "1");
        assert!(!throttled().lambda().headers.contains_key("retry-after"));
    }
}
