//! Templates of deployments: JSON with comments, and the expressions in it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::serve::azure::refusal::{Answered, Refusal, refuse};

/// Maximum nesting depth of expressions.
const DEEPEST: usize = 64;

/// Parses a request body with a template: `az` inserts the text of a template, with its comments, after a name without
/// quotes.
pub(super) fn as_json(body: &str) -> Answered<Value> {
    let mut out = String::with_capacity(body.len());
    let mut chars = body.char_indices().peekable();
    let mut replaced = false;
    while let Some((at, c)) = chars.next() {
        let rest = body.get(at..).unwrap_or("");
        match c {
            '"' => {
                out.push(c);
                let mut escaped = false;
                for (_, c) in chars.by_ref() {
                    // Strings may span several lines there.
                    match c {
                        '\n' => out.push_str("\\n"),
                        '\r' => out.push_str("\\r"),
                        '\t' => out.push_str("\\t"),
                        c => out.push(c),
                    }
                    if c == '"' && !escaped {
                        break;
                    }
                    escaped = c == '\\' && !escaped;
                }
            }
            '/' if rest.starts_with("//") => while chars.next_if(|(_, c)| *c != '\n').is_some() {},
            '/' if rest.starts_with("/*") => {
                let end = rest.get(2..).and_then(|text| text.find("*/"));
                let Some(end) = end else {
                    return refuse(400, "InvalidRequestContent", "A comment has no end.");
                };
                while chars.next_if(|(here, _)| *here < at + end + 4).is_some() {}
            }
            't' if !replaced && is_bare_template(rest) => {
                replaced = true;
                out.push_str("\"template\"");
                for _ in 1.."template".len() {
                    chars.next();
                }
            }
            c => out.push(c),
        }
    }
    serde_json::from_str(&out).map_err(|e| Refusal {
        status: 400,
        code: "InvalidRequestContent".to_owned(),
        message: format!("The request content was invalid and could not be deserialized: {e}."),
    })
}

fn is_bare_template(rest: &str) -> bool {
    rest.strip_prefix("template")
        .is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// The names that expressions can refer to.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) subscription: String,
    pub(super) tenant: String,
    pub(super) group: String,
    pub(super) location: String,
    /// By their names in lower case.
    pub(super) parameters: BTreeMap<String, Value>,
    pub(super) variables: BTreeMap<String, Value>,
}

fn invalid<T>(why: impl std::fmt::Display) -> Answered<T> {
    refuse(
        400,
        "InvalidTemplate",
        format!("Deployment template validation failed: {why}."),
    )
}

impl Scope {
    /// Evaluates all expressions in a value.
    pub(super) fn evaluate(&self, value: &Value, depth: usize) -> Answered<Value> {
        if depth > DEEPEST {
            return invalid("it is nested too deeply");
        }
        match value {
            Value::String(text) => self.text(text, depth),
            Value::Array(all) => {
                let all: Answered<Vec<Value>> = all
                    .iter()
                    .map(|value| self.evaluate(value, depth + 1))
                    .collect();
                Ok(Value::Array(all?))
            }
            Value::Object(all) => {
                let mut out = Map::new();
                for (name, value) in all {
                    out.insert(name.clone(), self.evaluate(value, depth + 1)?);
                }
                Ok(Value::Object(out))
            }
            other => Ok(other.clone()),
        }
    }

    fn text(&self, text: &str, depth: usize) -> Answered<Value> {
        if let Some(rest) = text.strip_prefix("[[") {
            return Ok(json!(format!("[{rest}")));
        }
        let Some(inner) = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
        else {
            return Ok(json!(text));
        };
        let mut parser = Parser {
            scope: self,
            text: inner,
            at: 0,
            depth,
        };
        let value = parser.expression()?;
        parser.skip_blanks();
        if parser.at < inner.len() {
            return invalid(format_args!(
                "the expression '{text}' can't be understood at position {}",
                parser.at
            ));
        }
        Ok(value)
    }

    fn call(&self, name: &str, arguments: &[Value], depth: usize) -> Answered<Value> {
        let texts = || -> Answered<Vec<String>> {
            arguments
                .iter()
                .map(|value| match value {
                    Value::String(text) => Ok(text.clone()),
                    Value::Number(number) => Ok(number.to_string()),
                    Value::Bool(yes) => Ok(if *yes { "True" } else { "False" }.to_owned()),
                    _ => invalid(format_args!("an argument of '{name}' is not a text")),
                })
                .collect()
        };
        match name.to_ascii_lowercase().as_str() {
            "parameters" | "variables" => {
                let [Value::String(wanted)] = arguments else {
                    return invalid(format_args!("'{name}' takes one name"));
                };
                let of_parameters = name.eq_ignore_ascii_case("parameters");
                let all = if of_parameters {
                    &self.parameters
                } else {
                    &self.variables
                };
                match all.get(&wanted.to_ascii_lowercase()) {
                    Some(value) if of_parameters => Ok(value.clone()),
                    Some(value) => self.evaluate(value, depth + 1),
                    None => invalid(format_args!(
                        "'{wanted}' is not among its {}",
                        name.to_ascii_lowercase()
                    )),
                }
            }
            "concat" if arguments.iter().all(Value::is_array) && !arguments.is_empty() => {
                let all = arguments.iter().filter_map(Value::as_array);
                Ok(Value::Array(all.flatten().cloned().collect()))
            }
            "concat" => {
                let joined = texts()?.concat();
                if joined.len() > 64 << 10 {
                    return invalid("a text is too long");
                }
                Ok(json!(joined))
            }
            "tolower" => Ok(json!(texts()?.concat().to_lowercase())),
            "toupper" => Ok(json!(texts()?.concat().to_uppercase())),
            "string" => Ok(json!(texts()?.concat())),
            "resourcegroup" => Ok(json!({
                "id": format!("/subscriptions/{}/resourceGroups/{}", self.subscription, self.group),
                "name": self.group,
                "type": "Microsoft.Resources/resourceGroups",
                "location": self.location,
                "tags": {},
                "properties": { "provisioningState": "Succeeded" },
            })),
            "subscription" => Ok(json!({
                "id": format!("/subscriptions/{}", self.subscription),
                "subscriptionId": self.subscription,
                "tenantId": self.tenant,
                "displayName": "vhdkit",
            })),
            "resourceid" => self.resource_id(&texts()?),
            _ => invalid(format_args!(
                "this server doesn't know the function '{name}'"
            )),
        }
    }

    /// `resourceId([SUBSCRIPTION], [GROUP], TYPE, NAME...)`
    fn resource_id(&self, texts: &[String]) -> Answered<Value> {
        let Some(at) = texts.iter().position(|text| text.contains('/')) else {
            return invalid("'resourceId' takes a type and a name");
        };
        let (before, rest) = texts.split_at(at);
        let (subscription, group) = match before {
            [] => (&self.subscription, &self.group),
            [group] => (&self.subscription, group),
            [subscription, group] => (subscription, group),
            _ => return invalid("'resourceId' takes too many names before the type"),
        };
        let (kind, names) = (
            rest.first().map_or("", String::as_str),
            rest.get(1..).unwrap_or_default(),
        );
        let mut parts = kind.split('/');
        let provider = parts.next().unwrap_or("");
        let kinds: Vec<&str> = parts.collect();
        if kinds.len() != names.len() {
            return invalid("'resourceId' takes a name for each part of the type");
        }
        let mut id =
            format!("/subscriptions/{subscription}/resourceGroups/{group}/providers/{provider}");
        for (kind, name) in kinds.iter().zip(names) {
            id = format!("{id}/{kind}/{name}");
        }
        Ok(json!(id))
    }
}

struct Parser<'a> {
    scope: &'a Scope,
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn takes(&mut self, sign: char) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len_utf8();
        }
        found
    }

    fn expected<T>(&self, what: &str) -> Answered<T> {
        invalid(format_args!(
            "{what} is expected at position {} of the expression '{}'",
            self.at, self.text
        ))
    }

    /// A value with accessors: `.name` and `[n]`.
    fn expression(&mut self) -> Answered<Value> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return invalid("an expression is nested too deeply");
        }
        let mut value = self.value()?;
        loop {
            if self.takes('.') {
                let name = self.word();
                let found = value.as_object().and_then(|all| {
                    all.iter()
                        .find(|(known, _)| known.eq_ignore_ascii_case(&name))
                });
                let Some((_, found)) = found else {
                    return invalid(format_args!("there is no '{name}' in '{}'", self.text));
                };
                value = found.clone();
            } else if self.takes('[') {
                let index = self.expression()?;
                let found = match &index {
                    Value::Number(number) => number
                        .as_u64()
                        .and_then(|n| value.get(usize::try_from(n).ok()?)),
                    Value::String(name) => value.get(name),
                    _ => None,
                };
                let Some(found) = found.cloned() else {
                    return invalid(format_args!("there is no [{index}] in '{}'", self.text));
                };
                value = found;
                if !self.takes(']') {
                    return self.expected("]");
                }
            } else {
                self.depth -= 1;
                return Ok(value);
            }
        }
    }

    fn word(&mut self) -> String {
        self.skip_blanks();
        let word: String = self
            .rest()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        self.at += word.len();
        word
    }

    fn value(&mut self) -> Answered<Value> {
        self.skip_blanks();
        if self.takes('\'') {
            let mut text = String::new();
            loop {
                let Some(end) = self.rest().find('\'') else {
                    return self.expected("the end of a text");
                };
                text.push_str(self.rest().get(..end).unwrap_or(""));
                self.at += end + 1;
                // Two of them represent one.
                if !self.rest().starts_with('\'') {
                    return Ok(json!(text));
                }
                text.push('\'');
                self.at += 1;
            }
        }
        let negative = self.takes('-');
        let word = self.word();
        if word.is_empty() {
            return self.expected("a function or a text");
        }
        if word.bytes().all(|b| b.is_ascii_digit()) {
            let Ok(number) = word.parse::<i64>() else {
                return self.expected("a number");
            };
            return Ok(json!(if negative { -number } else { number }));
        }
        match word.as_str() {
            "true" => return Ok(json!(true)),
            "false" => return Ok(json!(false)),
            "null" => return Ok(Value::Null),
            _ => {}
        }
        if !self.takes('(') {
            return self.expected("(");
        }
        let mut arguments = Vec::new();
        if !self.takes(')') {
            loop {
                arguments.push(self.expression()?);
                if self.takes(')') {
                    break;
                }
                if !self.takes(',') {
                    return self.expected(", or )");
                }
            }
        }
        self.scope.call(&word, &arguments, self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let map = |pairs: &[(&str, Value)]| {
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), v.clone()))
                .collect()
        };
        Scope {
            subscription: "S".into(),
            tenant: "T".into(),
            group: "G".into(),
            location: "eastus".into(),
            parameters: map(&[("diskname", json!("web")), ("list", json!(["a", "b"]))]),
            variables: map(&[
                ("snap", json!("[concat(parameters('diskName'), '_1')]")),
                ("loop", json!("[variables('loop')]")),
            ]),
        }
    }

    #[test]
    fn expressions_are_worked_out() {
        for (text, expected) in [
            ("plain", json!("plain")),
            ("[[not one]", json!("[not one]")),
            ("[parameters('DISKNAME')]", json!("web")),
            (
                "[ concat ( parameters('diskName') , '_snap''s', 1 ) ]",
                json!("web_snap's1"),
            ),
            ("[variables('snap')]", json!("web_1")),
            ("[resourceGroup().location]", json!("eastus")),
            ("[subscription().subscriptionId]", json!("S")),
            ("[parameters('list')[1]]", json!("b")),
            (
                "[resourceId('Microsoft.Compute/disks', variables('snap'))]",
                json!("/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/disks/web_1"),
            ),
            (
                "[resourceId('other', 'Microsoft.Compute/disks', 'x')]",
                json!("/subscriptions/S/resourceGroups/other/providers/Microsoft.Compute/disks/x"),
            ),
            ("[toLower('AbC')]", json!("abc")),
        ] {
            assert_eq!(
                scope().evaluate(&json!(text), 0).unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_one_is_told() {
        let deep = format!("[{}'x'{}]", "concat(".repeat(100), ")".repeat(100));
        for text in [
            "[]",
            "[parameters('no')]",
            "[parameters()]",
            "[parameters('diskName']",
            "[nothing('x')]",
            "['x' 'y']",
            "['x]",
            "[resourceGroup().no]",
            "[parameters('list')[9]]",
            "[resourceId('x')]",
            "[variables('loop')]",
            "[concat(1,]",
            &deep,
        ] {
            let refusal = scope().evaluate(&json!(text), 0).unwrap_err();
            assert_eq!(
                (refusal.status, refusal.code.as_str()),
                (400, "InvalidTemplate"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_pasted_template_is_read() {
        let body = "{\"properties\": {\"mode\": \"Incremental\", template:{ // a comment\n \"a\": \"// template: none\", /* b */ \"c\": \"\\\"\" }}}";
        let value = as_json(body).unwrap();
        assert_eq!(
            value["properties"]["template"],
            json!({ "a": "// template: none", "c": "\"" })
        );
        assert!(
            as_json("{\"a\": /* }").is_err() && as_json("{ä").is_err() && as_json("\"").is_err()
        );
    }
}
