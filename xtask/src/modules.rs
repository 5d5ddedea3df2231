//! The modules of virtax: which uses which, and that none uses itself in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Modules, each with those that it uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Code without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first names of what a list such as `a::{b, c}, d` uses.
fn first_names(list: &str) -> BTreeSet<String> {
    let (mut depth, mut names, mut word) = (0, BTreeSet::new(), String::new());
    let mut is_first = true;
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && is_first && (letter.is_alphanumeric() || letter == '_') {
            word.push(letter);
        } else if !word.is_empty() {
            names.insert(std::mem::take(&mut word));
            is_first = false;
        }
        is_first |= depth == 0 && letter == ',';
    }
    names.extend((!word.is_empty()).then_some(word));
    names
}

/// The modules that a file names after `crate::`.
fn used(text: &str) -> BTreeSet<String> {
    let code = code(text);
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => first_names(list),
            None => first_names(rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap()),
        })
        .collect()
}

fn add(folder: &Path, module: Option<&str>, uses: &mut Uses) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = module.unwrap_or(&name);
        if path.is_dir() {
            add(&path, Some(module), uses);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !["main", "lib"].contains(&module) {
            uses.entry(module.to_owned()).or_default().extend(used(&std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A circle of modules, if there is one.
fn circle(uses: &Uses) -> Option<Vec<String>> {
    fn follow<'a>(uses: &'a Uses, module: &'a str, way: &mut Vec<&'a str>, done: &mut BTreeSet<&'a str>) -> bool {
        if way.contains(&module) {
            way.push(module);
            return true;
        }
        if !done.contains(module) {
            way.push(module);
            for next in uses.get(module).into_iter().flatten().filter(|next| *next != module) {
                if follow(uses, next, way, done) {
                    return true;
                }
            }
            way.pop();
            done.insert(module);
        }
        false
    }
    let (mut way, mut done) = (Vec::new(), BTreeSet::new());
    let found = uses.keys().any(|module| follow(uses, module, &mut way, &mut done));
    let start = way.iter().position(|module| Some(module) == way.last())?;
    found.then(|| way[start..].iter().map(|module| (*module).to_owned()).collect())
}

#[test]
fn no_module_of_virtax_uses_itself_in_a_circle() {
    let mut uses = Uses::new();
    add(Path::new("../profiler/src"), None, &mut uses);
    let modules: BTreeSet<String> = uses.keys().cloned().collect();
    uses.values_mut().for_each(|used| used.retain(|name| modules.contains(name)));
    assert!(uses.len() > 30 && uses.values().map(BTreeSet::len).sum::<usize>() > 100, "{uses:?}");
    assert_eq!(circle(&uses), None);
}

#[test]
fn circles_are_found_and_what_is_used_is_read() {
    let text = "use crate::{\n    a::{self, B},\n    c,\n    d::E,\n};\n// crate::comment\nfn f() { crate::g::h() }\n\
                #[cfg(test)]\nmod tests {\n    use crate::only_tests;\n}\n";
    assert_eq!(used(text).into_iter().collect::<Vec<_>>(), ["a", "c", "d", "g"]);
    let of = |pairs: &[(&str, &str)]| {
        let mut uses = Uses::new();
        for (module, used) in pairs {
            uses.entry((*module).to_owned()).or_default().insert((*used).to_owned());
        }
        circle(&uses)
    };
    assert_eq!(of(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
    assert_eq!(of(&[("x", "a"), ("a", "b"), ("b", "c"), ("c", "a")]).unwrap(), ["a", "b", "c", "a"]);
}
