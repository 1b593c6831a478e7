//! JSON-RPC 2.0, one object a line: what the daemon speaks on its socket and `yodel rpc` on stdin and stdout. Methods
//! are named like the commands, with a dot where a command has a space (`contacts.add`).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The method of notifications; their `params` are what `events --json` prints.
pub const EVENT: &str = "event";

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Request {
    /// Always `2.0`.
    pub jsonrpc: String,
    /// Named again in the response; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// What to do.
    pub method: String,
    /// With what.
    #[serde(default)]
    pub params: Value,
}

/// Why a request got no result.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Error {
    /// Negative: JSON-RPC's own. Positive: the exit code of the command.
    pub code: i64,
    /// For people.
    pub message: String,
    /// `{"v":1,"exit":N,"cause":…}` where the machine refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl Error {
    /// One of JSON-RPC's own (its §5.1), or of ours without data.
    pub fn new(code: i64, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), data: None }
    }
}

/// The line is no JSON.
pub const PARSE: i64 = -32_700;
/// The JSON is no request.
pub const INVALID_REQUEST: i64 = -32_600;
/// No such method.
pub const NO_METHOD: i64 = -32_601;
/// The parameters make no sense.
pub const INVALID_PARAMS: i64 = -32_602;

/// Reads one line.
///
/// # Errors
/// The error to answer with, and the id to answer to.
pub fn parse(line: &[u8]) -> Result<Request, (Value, Error)> {
    let value: Value =
        serde_json::from_slice(line).map_err(|_| (Value::Null, Error::new(PARSE, "not JSON")))?;
    let id = value.get("id").cloned().unwrap_or(Value::Null);
    match serde_json::from_value::<Request>(value) {
        Ok(request) if request.jsonrpc == "2.0" => Ok(request),
        Ok(_) | Err(_) => Err((id, Error::new(INVALID_REQUEST, "not a JSON-RPC 2.0 request"))),
    }
}

/// A response, as one line with its end.
pub fn response(id: &Value, result: &Result<Value, Error>) -> String {
    let mut line = match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    }
    .to_string();
    line.push('\n');
    line
}

/// A notification, as one line with its end.
pub fn notification(params: &Value) -> String {
    let mut line = json!({"jsonrpc": "2.0", "method": EVENT, "params": params}).to_string();
    line.push('\n');
    line
}

/// A request, as one line with its end.
pub fn request(id: u64, method: &str, params: &Value) -> String {
    let mut line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers() {
        let line = request(7, "contacts.add", &json!({"user": "bob"}));
        let read = parse(line.as_bytes()).unwrap();
        assert_eq!((read.id, read.method.as_str()), (Some(json!(7)), "contacts.add"));
        assert_eq!(parse(b"{").unwrap_err().1.code, PARSE);
        assert_eq!(parse(br#"{"id":3,"method":"status"}"#).unwrap_err(), {
            (json!(3), Error::new(INVALID_REQUEST, "not a JSON-RPC 2.0 request"))
        });
        assert_eq!(
            response(&json!(1), &Err(Error::new(NO_METHOD, "x"))),
            "{\"error\":{\"code\":-32601,\"message\":\"x\"},\"id\":1,\"jsonrpc\":\"2.0\"}\n"
        );
    }
}
