//! Layouts of tracepoints' records, as the running kernel's `format` files say. They differ between kernels: fields
//! come and go, and the common header of RHEL's and real-time kernels is wider.

use std::collections::BTreeMap;

/// Largest record of a tracepoint, bytes (`PERF_MAX_TRACE_SIZE`).
const LARGEST_RECORD: u32 = 8192;
/// Most fields that are taken.
const MOST_FIELDS: usize = 256;

/// A field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// From the beginning of the record, bytes.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Whether it is a signed number.
    pub signed: bool,
}

/// A record's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The event's name.
    pub name: String,
    /// The number under which `perf_event_open(2)` knows it.
    pub id: u32,
    /// Fields by name, those of the common header included.
    pub fields: BTreeMap<String, Field>,
}

impl Format {
    /// Reads a `format` file (`Documentation/trace/events.rst`).
    ///
    /// # Errors
    /// What is wrong with it: no name or number, or a field that is cut off, twice there, or outside of any record.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut name, mut id, mut fields) = (None, None, BTreeMap::new());
        for line in text.lines() {
            let line = line.trim();
            if let Some(found) = line.strip_prefix("name:") {
                name = Some(found.trim().to_owned());
            } else if let Some(found) = line.strip_prefix("ID:") {
                id = Some(number(found, "ID")?);
            } else if line.starts_with("field:") {
                let (name, field) = field(line)?;
                if fields.insert(name.to_owned(), field).is_some() {
                    return Err(format!("field {name} is there twice"));
                }
                if fields.len() > MOST_FIELDS {
                    return Err(format!("it has more than {MOST_FIELDS} fields"));
                }
            } else if line.starts_with("print fmt:") {
                // Free text from here on.
                break;
            }
        }
        let name = name.filter(|name| !name.is_empty()).ok_or("it has no name")?;
        Ok(Self { name, id: id.ok_or("it has no ID")?, fields })
    }

    /// Where a field of this many bytes lies.
    ///
    /// # Errors
    /// If there is none, or it has another size.
    pub fn offset_of(&self, field: &str, size: u32) -> Result<u32, String> {
        let found =
            self.fields.get(field).ok_or_else(|| format!("the record of {} has no field {field}", self.name))?;
        if found.size != size {
            return Err(format!("field {field} of {} has {} bytes, not {size}", self.name, found.size));
        }
        Ok(found.offset)
    }
}

fn number(text: &str, what: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("{what} is no number: {:?}", text.trim().chars().take(40).collect::<String>()))
}

/// `field:const void * skbaddr;  offset:16;  size:8;  signed:0;`
fn field(line: &str) -> Result<(&str, Field), String> {
    let (mut declaration, mut offset, mut size, mut signed) = (None, None, None, None);
    for part in line.split(';') {
        match part.trim().split_once(':') {
            Some(("field", found)) => declaration = Some(found),
            Some(("offset", found)) => offset = Some(number(found, "an offset")?),
            Some(("size", found)) => size = Some(number(found, "a size")?),
            Some(("signed", found)) => signed = Some(number(found, "a sign")? != 0),
            _ => {}
        }
    }
    let (Some(declaration), Some(offset), Some(size), Some(signed)) = (declaration, offset, size, signed) else {
        return Err(format!("a field is cut off: {:?}", line.chars().take(80).collect::<String>()));
    };
    // The last word, without the length of an array.
    let word = declaration.trim().rsplit([' ', '*']).next().unwrap_or_default();
    let name = word.split('[').next().unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(format!("a field has no name: {:?}", declaration.chars().take(80).collect::<String>()));
    }
    if offset.checked_add(size).is_none_or(|end| end > LARGEST_RECORD) {
        return Err(format!("field {name} lies outside of any record"));
    }
    Ok((name, Field { offset, size, signed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "name: sk_data_ready\nID: 2285\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:__u8 saddr[28];\toffset:16;\tsize:28;\tsigned:0;\n\
        \tfield:__data_loc char[] name;\toffset:44;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"field:x;\"\n";

    #[test]
    fn a_format_has_fields() {
        let format = Format::parse(READY).unwrap();
        assert_eq!((format.name.as_str(), format.id, format.fields.len()), ("sk_data_ready", 2285, 5));
        assert_eq!(format.fields["common_pid"], Field { offset: 4, size: 4, signed: true });
        assert_eq!(format.offset_of("skaddr", 8), Ok(8));
        assert_eq!(format.fields["saddr"].size, 28);
        assert_eq!(format.fields["name"].offset, 44);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let format = Format::parse(READY).unwrap();
        let cases = [
            format.offset_of("skbaddr", 8).unwrap_err(),
            format.offset_of("skaddr", 4).unwrap_err(),
            Format::parse("").unwrap_err(),
            Format::parse("name: x").unwrap_err(),
            Format::parse("name: x\nID: -1").unwrap_err(),
            Format::parse("name: x\nID: 1\nfield:int a;\toffset:0;\tsize:4").unwrap_err(),
            Format::parse(
                "name: x\nID: 1\nfield:int a;offset:0;size:4;signed:1;\nfield:int a;offset:4;size:4;signed:1;",
            )
            .unwrap_err(),
            Format::parse("name: x\nID: 1\nfield:int a;offset:4294967295;size:4;signed:1;").unwrap_err(),
            Format::parse("name: x\nID: 1\nfield:void *;offset:0;size:4;signed:1;").unwrap_err(),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}
