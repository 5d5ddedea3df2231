//! The modules of virtax's crates: which uses which, and that none uses itself in a circle.

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

/// The modules that a file names after `crate::`, or after `super::` where that is the same.
fn used(text: &str, is_at_root: bool) -> BTreeSet<String> {
    let code = code(text);
    let code = if is_at_root { code.replace("super::", "crate::") } else { code };
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
            let is_at_root = folder.ends_with("src");
            let text = std::fs::read_to_string(&path).unwrap();
            uses.entry(module.to_owned()).or_default().extend(used(&text, is_at_root));
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

/// Crates, and as many modules and uses of modules as each surely has.
const CRATES: [(&str, usize, usize); 7] = [
    ("profiler", 8, 5),
    ("profiler/agent", 2, 1),
    ("profiler/analysis", 8, 10),
    ("profiler/engines", 12, 25),
    ("profiler/model", 7, 6),
    ("profiler/probes", 15, 20),
    ("profiler/report", 3, 3),
];

#[test]
fn no_module_of_virtax_uses_itself_in_a_circle() {
    let mut circles = Vec::new();
    for (name, modules, arrows) in CRATES {
        let mut uses = Uses::new();
        add(&Path::new("..").join(name).join("src"), None, &mut uses);
        let known: BTreeSet<String> = uses.keys().cloned().collect();
        uses.values_mut().for_each(|used| used.retain(|name| known.contains(name)));
        let found = (uses.len(), uses.values().map(BTreeSet::len).sum::<usize>());
        assert!(found.0 >= modules && found.1 >= arrows, "{name}: {found:?} {uses:?}");
        circles.extend(circle(&uses).map(|circle| format!("{name}: {}", circle.join(" → "))));
    }
    assert_eq!(circles, Vec::<String>::new());
}

#[test]
fn circles_are_found_and_what_is_used_is_read() {
    let text = "use crate::{\n    a::{self, B},\n    c,\n    d::E,\n};\n// crate::comment\nfn f() { crate::g::h() }\n\
                #[cfg(test)]\nmod tests {\n    use crate::only_tests;\n}\n";
    assert_eq!(used(text, false).into_iter().collect::<Vec<_>>(), ["a", "c", "d", "g"]);
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
