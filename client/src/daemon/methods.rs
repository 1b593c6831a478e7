//! The methods of the daemon's JSON-RPC: names, parameters, and which request of the machine each one is.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use yodel_identity::name::{Aor, RealmName};

use super::hub::{Asker, AutoAnswer, ConnectionId, Follow, Hub, Kinds, invalid, no_audio};
use super::json::call_id;
use crate::audio::Spec;
use crate::audio::record::Recorded;
use crate::command::{CallId, Dial, Request};
use crate::config::Config;
use crate::{rpc, span};

/// What methods need beside their parameters.
#[derive(Debug)]
pub(crate) struct Methods {
    /// For names without a realm.
    pub(crate) realm: RealmName,
    pub(crate) config: Config,
}

/// How a method is carried out.
enum Plan {
    Ask(Box<Request>, Follow),
    Subscribe(Kinds),
    Auto(AutoAnswer),
    Stop,
}

impl Methods {
    /// Carries out one request and puts its response into the connection's queue.
    pub(crate) async fn handle(&self, hub: &Hub, connection: ConnectionId, request: rpc::Request) {
        let id = request.id;
        match self.plan(&request.method, &request.params) {
            Ok(Plan::Ask(ask, follow)) => hub.ask(Asker { connection, id, follow }, *ask).await,
            Ok(Plan::Subscribe(kinds)) => {
                hub.respond(connection, id.as_ref(), &Ok(json!({"v": 1})));
                hub.subscribe(connection, kinds);
            }
            Ok(Plan::Auto(auto)) => {
                hub.respond(connection, id.as_ref(), &Ok(json!({"v": 1, "event": "ready"})));
                hub.auto_answer(connection, auto);
            }
            Ok(Plan::Stop) => {
                hub.respond(connection, id.as_ref(), &Ok(json!({"v": 1})));
                hub.stop().await;
            }
            Err(error) => hub.respond(connection, id.as_ref(), &Err(error)),
        }
    }

    fn plan(&self, method: &str, params: &Value) -> Result<Plan, rpc::Error> {
        if !(params.is_object() || params.is_null()) {
            return Err(invalid("params must be an object"));
        }
        let ask = |request| Ok(Plan::Ask(Box::new(request), Follow::No));
        match method.replace(' ', ".").as_str() {
            "status" => ask(Request::Status),
            "doctor" => ask(Request::Checkup),
            "contacts.list" => ask(Request::Contacts),
            "contacts.requests" => ask(Request::ContactRequests),
            "contacts.add" => ask(Request::ContactAdd(self.user(params)?)),
            "contacts.accept" => ask(Request::ContactAccept(self.user(params)?)),
            "contacts.reject" => ask(Request::ContactReject(self.user(params)?)),
            "contacts.remove" => ask(Request::ContactRemove(self.user(params)?)),
            "contacts.block" => ask(Request::ContactBlock(self.user(params)?, true)),
            "contacts.unblock" => ask(Request::ContactBlock(self.user(params)?, false)),
            "calls" => ask(Request::Calls),
            "decline" => ask(Request::Decline(call(params)?)),
            "hangup" => ask(Request::Hangup(call(params)?)),
            "mute" => ask(Request::Mute(call(params)?, true)),
            "unmute" => ask(Request::Mute(call(params)?, false)),
            "why" => ask(Request::Why(call(params)?)),
            "call" if flag(params, "dry_run")? => ask(Request::Reach(self.user(params)?)),
            "call" => Ok(Plan::Ask(Box::new(Request::Dial(self.dial(params)?)), Follow::Own)),
            "answer" => self.answer(params),
            "events" => kinds(params).map(Plan::Subscribe),
            "daemon.stop" => Ok(Plan::Stop),
            _ => Err(rpc::Error::new(rpc::NO_METHOD, "no such method")),
        }
    }

    fn dial(&self, params: &Value) -> Result<Dial, rpc::Error> {
        let peer = self.user(params)?;
        let max = time(params, "max")?;
        let ring_timeout = time(params, "ring_timeout")?.or(self.config.ring_timeout);
        let relay_only = flag(params, "relay_only")?;
        let mut audio = self.audio(params)?.open(1).map_err(|error| no_audio(&error))?;
        if let Some(file) = text(params, "record")? {
            audio = Box::new(Recorded::new(audio, Path::new(file)).map_err(|error| no_audio(&error))?);
        }
        Ok(Dial { peer, audio, relay_only, max, ring_timeout })
    }

    fn answer(&self, params: &Value) -> Result<Plan, rpc::Error> {
        let audio = self.audio(params)?;
        if flag(params, "auto")? {
            let from = match params.get("from") {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(users)) => {
                    let aor = |user: &Value| self.aor(user.as_str().unwrap_or_default());
                    users.iter().map(aor).collect::<Result<Vec<_>, _>>()?
                }
                Some(_) => return Err(invalid("from must be an array of users")),
            };
            // What cannot be opened would be found out when somebody calls, and then by the caller.
            audio.check().map_err(|error| no_audio(&error))?;
            return Ok(Plan::Auto(AutoAnswer::new(from, audio)));
        }
        let call = call(params)?;
        let audio = audio.open(1).map_err(|error| no_audio(&error))?;
        Ok(Plan::Ask(Box::new(Request::Answer { call, audio }), Follow::Events))
    }

    fn user(&self, params: &Value) -> Result<Aor, rpc::Error> {
        let user = text(params, "user")?.ok_or_else(|| invalid("user is missing"))?;
        self.aor(user)
    }

    fn aor(&self, user: &str) -> Result<Aor, rpc::Error> {
        let full = if user.contains('@') { user.to_owned() } else { format!("{user}@{}", self.realm) };
        Aor::parse(&full).map_err(|error| invalid(format!("user: {error}")))
    }

    fn audio(&self, params: &Value) -> Result<Spec, rpc::Error> {
        match text(params, "audio")? {
            Some(spec) => spec.parse().map_err(|error| invalid(format!("audio: {error}"))),
            None => Ok(self.config.audio.clone()),
        }
    }
}

fn text<'a>(params: &'a Value, key: &str) -> Result<Option<&'a str>, rpc::Error> {
    match params.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("{key} must be a string"))),
    }
}

fn flag(params: &Value, key: &str) -> Result<bool, rpc::Error> {
    match params.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(invalid(format!("{key} must be true or false"))),
    }
}

/// A time: a text with unit, or a number of seconds.
fn time(params: &Value, key: &str) -> Result<Option<Duration>, rpc::Error> {
    let text = match params.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(seconds)) => seconds.to_string(),
        Some(_) => return Err(invalid(format!("{key} must be a time"))),
    };
    span::parse(&text).map(Some).map_err(|error| invalid(format!("{key} {error}")))
}

/// A call by its id; `last` and nothing leave the choice to the machine.
fn call(params: &Value) -> Result<Option<CallId>, rpc::Error> {
    match text(params, "call")? {
        None | Some("last") => Ok(None),
        Some(text) => call_id(text).map(Some).ok_or_else(|| invalid("call: no such id")),
    }
}

fn kinds(params: &Value) -> Result<Kinds, rpc::Error> {
    let only = match params.get("only") {
        None | Some(Value::Null) => return Ok(Kinds::ALL),
        Some(Value::Array(only)) => only,
        Some(_) => return Err(invalid("only must be an array of kinds")),
    };
    let mut kinds = Kinds::default();
    for kind in only {
        match kind.as_str() {
            Some("call") => kinds.call = true,
            Some("contact") => kinds.contact = true,
            Some("online") => kinds.online = true,
            Some(_) | None => return Err(invalid("kinds are call, contact and online")),
        }
    }
    Ok(kinds)
}
