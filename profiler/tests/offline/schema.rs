//! JSON Schema (draft 2020-12), as far as published schemas here use it: what they say beyond that is refused, not
//! passed over.

use serde_json::Value;

/// What of a document does not keep to a schema, by its path.
pub fn faults(schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, document, "", &mut found);
    found
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("unknown type {other}"),
    }
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let Value::Object(rules) = schema else {
        assert_eq!(schema, &Value::Bool(true), "{path}");
        return;
    };
    let passes = |schema: &Value| {
        let mut inner = Vec::new();
        check(root, schema, value, path, &mut inner);
        inner.is_empty()
    };
    for (rule, said) in rules {
        let keeps = match rule.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => true,
            "$ref" => {
                let target = root.pointer(said.as_str().unwrap().trim_start_matches('#')).expect("what is referred to");
                check(root, target, value, path, found);
                true
            }
            "type" => match said.as_array() {
                Some(names) => names.iter().any(|name| is_of(name.as_str().unwrap(), value)),
                None => is_of(said.as_str().unwrap(), value),
            },
            "enum" => said.as_array().unwrap().contains(value),
            "const" => said == value,
            "anyOf" => said.as_array().unwrap().iter().any(passes),
            "oneOf" => said.as_array().unwrap().iter().filter(|schema| passes(schema)).count() == 1,
            "minimum" => value.as_f64().is_none_or(|number| number >= said.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= said.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= said.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= said.as_u64().unwrap()),
            "required" => value.as_object().is_none_or(|fields| {
                said.as_array().unwrap().iter().all(|name| fields.contains_key(name.as_str().unwrap()))
            }),
            "prefixItems" => {
                let items = value.as_array().into_iter().flatten();
                for (index, (schema, item)) in said.as_array().unwrap().iter().zip(items).enumerate() {
                    check(root, schema, item, &format!("{path}/{index}"), found);
                }
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, said, item, &format!("{path}/{index}"), found);
                }
                true
            }
            "properties" => {
                for (name, schema) in said.as_object().unwrap() {
                    if let Some(field) = value.get(name) {
                        check(root, schema, field, &format!("{path}/{name}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Value::as_object);
                for (name, field) in value.as_object().into_iter().flatten() {
                    if !known.is_some_and(|known| known.contains_key(name)) {
                        check(root, said, field, &format!("{path}/{name}"), found);
                    }
                }
                true
            }
            other => panic!("{path}: what {other} says is not looked at"),
        };
        if !keeps {
            found.push(format!("{path}: {rule} {said}"));
        }
    }
}
