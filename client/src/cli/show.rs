//! Results and events as people read them.

use serde_json::Value;

pub(crate) fn nothing(_value: &Value) -> String {
    String::new()
}

pub(crate) fn status(value: &Value) -> String {
    let mut out = format!("{}  {}\n", text(value, "account"), text(value, "state"));
    out += &format!("device   {}\n", text(value, "device"));
    for home in items(value, "homes") {
        out += &format!("home     {}  {}  {}\n", text(home, "node"), text(home, "addr"), text(home, "state"));
    }
    let nat = value.get("nat").unwrap_or(&Value::Null);
    out += &format!("nat      mapping {}, filtering {}\n", text(nat, "mapping"), text(nat, "filtering"));
    out
}

pub(crate) fn checks(value: &Value) -> String {
    items(value, "checks")
        .iter()
        .map(|check| {
            let mark = match text(check, "verdict") {
                "fail" => "FAIL",
                mark => mark,
            };
            format!("{mark:<4} {:<13} {}\n", text(check, "check"), text(check, "detail"))
        })
        .collect()
}

pub(crate) fn contacts(value: &Value) -> String {
    items(value, "contacts").iter().map(|c| format!("{}  {}\n", text(c, "user"), text(c, "state"))).collect()
}

pub(crate) fn requests(value: &Value) -> String {
    items(value, "requests")
        .iter()
        .map(|request| {
            let what = if text(request, "kind") == "call" { "called" } else { "asks to be a contact" };
            format!("{}  {what}  {}\n", text(request, "user"), text(request, "note")).replace("  \n", "\n")
        })
        .collect()
}

pub(crate) fn reach(value: &Value) -> String {
    let devices = items(value, "devices").len();
    format!("{}  {devices} device{} online\n", text(value, "peer"), if devices == 1 { "" } else { "s" })
}

pub(crate) fn calls(value: &Value) -> String {
    items(value, "calls")
        .iter()
        .map(|call| {
            let arrow = if text(call, "dir") == "out" { "→" } else { "←" };
            let line =
                format!("{}  {arrow} {}  {}", text(call, "call"), text(call, "peer"), text(call, "state"));
            match text(call, "path") {
                "" => format!("{line}\n"),
                path => format!("{line}  {path}\n"),
            }
        })
        .collect()
}

pub(crate) fn why(value: &Value) -> String {
    let arrow = if text(value, "dir") == "out" { "→" } else { "←" };
    let mut out = format!("call {} {arrow} {}\n", text(value, "call"), text(value, "peer"));
    for step in items(value, "steps") {
        out += &format!("{:>8} ms  {}\n", number(step, "t_ms"), text(step, "text"));
    }
    if !text(value, "cause").is_empty() {
        out += &format!("cause: {}\nnext:  {}\n", text(value, "cause"), text(value, "next_step"));
    }
    out
}

pub(crate) fn event(value: &Value) -> String {
    match text(value, "kind") {
        "call" => call_event(value),
        "contact" => format!("contact {} {}\n", text(value, "user"), text(value, "change")),
        kind => format!("{kind} {}\n", text(value, "state")),
    }
}

fn call_event(value: &Value) -> String {
    let what = match text(value, "state") {
        "path" => match value.get("rtt_ms").and_then(Value::as_f64) {
            Some(rtt) => format!("path {} ({rtt} ms)", text(value, "path")),
            None => format!("path {}", text(value, "path")),
        },
        "stats" => format!(
            "loss {:.1} %  jitter {} ms  delay {} ms",
            value.get("loss").and_then(Value::as_f64).unwrap_or(0.0) * 100.0,
            number(value, "jitter_ms"),
            number(value, "delay_ms"),
        ),
        "ended" => match text(value, "detail") {
            "" => format!("ended: {}", text(value, "cause")),
            detail => format!("ended: {} ({detail})", text(value, "cause")),
        },
        state => state.to_owned(),
    };
    format!("{:>8} ms  {}  {what}\n", number(value, "t_ms"), text(value, "peer"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> String {
    value.get(key).filter(|number| number.is_number()).map(Value::to_string).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
