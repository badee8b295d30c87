//! What a check says of files of the shapes that councils upload, and of some that nobody should.

use std::path::Path;

use gate::check::{check, check_set, refused_size};
use gate::report::{BadRow, File};
use gate::rules::Rules;

/// The rules that come with the program, with these settings over them.
fn rules(settings: &[(&str, &str)]) -> Rules {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("gate.toml");
    let settings = settings.iter().map(|(name, value)| (format!("GATE_{name}"), (*value).to_owned()));
    Rules::read(Some(&file), settings).unwrap()
}

/// What is said of a file, whatever its size.
fn checked(key: &str, bytes: &[u8]) -> File {
    let mut rules = rules(&[]);
    rules.limits.min_bytes = 0;
    check(&rules, key, Some(bytes.len() as u64), bytes).unwrap()
}

/// A table with these first columns and others up to `columns`, of so many records with the header.
fn table(first: &[&str], columns: usize, records: usize, delimiter: char, end: &str, quote: &str) -> String {
    let name = |column: usize| first.get(column).map_or_else(|| format!("column{column}"), |name| (*name).to_owned());
    let record = |number: usize| {
        let value = |column| if number == 0 { name(column) } else { format!("{number}.{column}") };
        let values: Vec<_> = (0..columns).map(|column| format!("{quote}{}{quote}", value(column))).collect();
        values.join(&delimiter.to_string()) + end
    };
    (0..records).map(record).collect()
}

fn valid(key: &str, rows: u64, encoding: &str, kind: &str) -> File {
    File {
        csv_valid: true,
        csv_rows: rows,
        csv_encoding: encoding.into(),
        ems: kind.into(),
        errors: String::new(),
        key: key.into(),
        more: None,
    }
}

fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(order).collect()
}

const HALAROSE: &str = "Idox Eros (Halarose)";
const XPRESS: &str = "Xpress DC";
const DEMOCRACY_COUNTS: &str = "Democracy Counts";

#[test]
fn files_of_each_kind_are_let_in() {
    let halarose = table(&["HouseID"], 19, 10, ',', "\r\n", "");
    assert_eq!(checked("a.csv", halarose.as_bytes()), valid("a.csv", 10, "utf-8", HALAROSE));
    let xpress = table(&["ElectionDate"], 38, 10, ',', "\n", "");
    assert_eq!(checked("a.csv", xpress.as_bytes()), valid("a.csv", 10, "utf-8", XPRESS));
    let lookup = table(&["AuthorityCode"], 16, 10, ',', "\n", "\"");
    assert_eq!(checked("a.CSV", lookup.as_bytes()), valid("a.CSV", 10, "utf-8", "Xpress WebLookup"));
    let counts = table(&["a", "Xordinate"], 11, 20, ',', "\n", "");
    assert_eq!(checked("a.csv", counts.as_bytes()), valid("a.csv", 20, "utf-8", DEMOCRACY_COUNTS));
    let unknown = table(&["STRAND_ID"], 19, 10, ',', "\n", "");
    assert_eq!(checked("a.csv", unknown.as_bytes()), valid("a.csv", 10, "utf-8", "unknown"));
    let spaced = table(&[" houseID "], 19, 10, ',', "\n", "");
    assert_eq!(checked("a.csv", spaced.as_bytes()), valid("a.csv", 10, "utf-8", HALAROSE));
    let header = "foo,bar,baz";
    assert_eq!(checked("a.csv", header.as_bytes()), valid("a.csv", 1, "utf-8", "unknown"));
    let longer = format!("{header}\n1,2,3,4\n");
    assert_eq!(checked("a.csv", longer.as_bytes()), valid("a.csv", 2, "utf-8", "unknown"));
}

#[test]
fn the_delimiter_is_found_whatever_the_extension_says() {
    for delimiter in [',', '\t'] {
        for key in ["a.csv", "a.tsv", "a.TSV", "a"] {
            let file = table(&["ElectionDate", "a, b", "c"], 38, 10, delimiter, "\n", "\"");
            assert_eq!(checked(key, file.as_bytes()), valid(key, 10, "utf-8", XPRESS));
        }
    }
    // The header has more commas than tabs; the rows do not.
    let file = "houseid\tName, first, last\tc\n1\t2\t3\n4\t5\t6\n";
    assert_eq!(checked("a.csv", file.as_bytes()), valid("a.csv", 3, "utf-8", HALAROSE));
}

#[test]
fn encodings_are_told_by_all_bytes() {
    let file = table(&["ElectionDate"], 38, 10, '\t', "\r\n", "");
    let with = |bytes: &[u8]| [file.as_bytes(), "1\t".repeat(37).as_bytes(), bytes].concat();
    assert_eq!(checked("a.csv", &with(b"caf\xe9 \x80\n")), valid("a.csv", 11, "windows-1252", XPRESS));
    assert_eq!(checked("a.csv", &with(b"caf\xe9 \x81\n")), valid("a.csv", 11, "latin-1", XPRESS));
    assert_eq!(checked("a.csv", &with("café\n".as_bytes())), valid("a.csv", 11, "utf-8", XPRESS));
    // The last row is not ended.
    let counts = table(&["a", "Xordinate"], 12, 35, ',', "\r\n", "\"");
    let counts = counts.trim_end();
    assert_eq!(checked("a.csv", &utf16(counts, u16::to_le_bytes)), valid("a.csv", 35, "utf-16le", DEMOCRACY_COUNTS));
    assert_eq!(checked("a.csv", &utf16(counts, u16::to_be_bytes)), valid("a.csv", 35, "utf-16be", DEMOCRACY_COUNTS));
}

#[test]
fn a_mark_at_the_beginning_hides_no_kind() {
    let file = table(&["HouseID"], 19, 10, ',', "\n", "");
    let marked = format!("\u{feff}{file}");
    assert_eq!(checked("a.csv", marked.as_bytes()), valid("a.csv", 10, "utf-8", HALAROSE));
    assert_eq!(checked("a.csv", &utf16(&marked, u16::to_le_bytes)), valid("a.csv", 10, "utf-16le", HALAROSE));
    assert_eq!(checked("a.csv", &utf16(&marked, u16::to_be_bytes)), valid("a.csv", 10, "utf-16be", HALAROSE));
}

#[test]
fn a_cut_file_is_refused_by_its_row() {
    let file = table(&["ElectionDate"], 38, 12, ',', "\n", "");
    let lines: Vec<_> = file.lines().collect();
    let seven = lines[9].split(',').take(7).collect::<Vec<_>>().join(",");
    let cut = format!("{}\n{seven}", lines[..9].join("\n"));
    let found = checked("a.csv", cut.as_bytes());
    assert_eq!(found.errors, "Incomplete file: Expected 38 columns on row 10 found 7");
    assert_eq!((found.csv_valid, found.csv_rows, found.ems.as_str()), (false, 10, XPRESS));
    // What comes after the row still tells the encoding.
    let after = [cut.as_bytes(), b"\n", lines[11].as_bytes(), b"\xe9\n"].concat();
    let found = checked("a.csv", &after);
    assert_eq!((found.csv_rows, found.csv_encoding.as_str()), (10, "windows-1252"));
}

#[test]
fn what_is_no_table_is_refused() {
    let errors = |key: &str, bytes: &[u8]| {
        let found = checked(key, bytes);
        assert!(!found.csv_valid, "{found:?}");
        (found.errors, found.csv_rows)
    };
    let only = |columns| (format!("File has only {columns} columns. We might have failed to detect the delimiter"), 0);
    assert_eq!(errors("a.csv", b""), ("File is empty".into(), 0));
    assert_eq!(errors("a.csv", b"\n"), only(0));
    assert_eq!(errors("a.tsv", b"\n"), only(0));
    assert_eq!(errors("a.csv", b"a;b;c\n1;2;3\n"), only(1));
    assert_eq!(errors("a.tsv", b"a|b|c\n1|2|3\n"), only(1));
    let endless = format!("a,b,\"c{}", "x".repeat(2 << 20));
    assert_eq!(errors("a.csv", endless.as_bytes()).0, "The header is longer than 1MB. Is a quote not closed?");
}

#[test]
fn a_file_that_is_cut_in_a_value_is_refused() {
    let errors = |bytes: &[u8]| checked("a.csv", bytes).errors;
    assert_eq!(errors(b"a,b,c\n1,2,\"3\n4,5,6\n"), "A quote is not closed in row 2");
    assert_eq!(errors(b"a,b,c\n1,\"2\n4,5,6\n"), "Incomplete file: Expected 3 columns on row 2 found 2");
    assert_eq!(errors(b"a,b,\"c\n1,2,3\n"), "A quote is not closed in row 1");
    assert_eq!(errors(b"a,b,c\n1,2,\"3\""), "");
    let file = utf16(&table(&["houseid"], 4, 4, ',', "\n", ""), u16::to_le_bytes);
    assert_eq!(errors(&file), "");
    assert_eq!(errors(&file[..file.len() - 3]), "The file is cut in the middle of a character, or is no UTF-16");
    let commas = ",".repeat(70_000);
    assert_eq!(errors(commas.as_bytes()), "The header has more than 65536 columns");
}

#[test]
fn blank_rows_do_not_count_unless_the_rules_say_so() {
    let file = "a,b,c\r\n1,2,3\r\n\r\n\r\n4,5,6\r\n\r\n";
    assert_eq!(checked("a.csv", file.as_bytes()), valid("a.csv", 3, "utf-8", "unknown"));
    let mut strict = rules(&[("TEXT__BLANK_ROWS", "error")]);
    strict.limits.min_bytes = 0;
    let found = check(&strict, "a.csv", None, file.as_bytes()).unwrap();
    assert_eq!(found.errors, "Incomplete file: Expected 3 columns on row 3 found 0");
    assert_eq!(
        check(&strict, "a.csv", None, &b"\na,b,c\n1,2,3"[..]).unwrap().errors,
        "File has only 0 columns. We might have failed to detect the delimiter"
    );
    assert_eq!(checked("a.csv", b"\n\na,b,c\n1,2").errors, "Incomplete file: Expected 3 columns on row 4 found 2");
    // The number of a short row is that which a spreadsheet shows.
    let short = format!("{file}7,8\r\n");
    assert_eq!(checked("a.csv", short.as_bytes()).errors, "Incomplete file: Expected 3 columns on row 7 found 2");
}

#[test]
fn only_the_ends_of_lines_end_a_row() {
    for (text, rows) in [
        ("a,b,c\r1,2,3\r4,5,6\r", 3),
        ("a,b,c\n1,2,\"3\n\n3\"\n4,5,6", 3),
        ("a,b,c\n1\u{85}1,2\u{2028}2,3\u{c}\u{b}3\n", 2),
        ("a,b,c\n1,\"2 \"\"x\"\", 2\",3\n", 2),
        ("a,b,c\n1\0,'2,3\n", 2),
    ] {
        assert_eq!(checked("a.csv", text.as_bytes()), valid("a.csv", rows, "utf-8", "unknown"), "{text:?}");
    }
}

#[test]
fn pieces_of_any_size_give_the_same() {
    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);
    impl std::io::Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let bytes = self.0.len().min(self.1).min(to.len());
            to[..bytes].copy_from_slice(&self.0[..bytes]);
            self.0 = &self.0[bytes..];
            Ok(bytes)
        }
    }
    // More than one piece, so that rows and characters are cut.
    let mut file = table(&["HouseID", "Xé\"\""], 7, 20_000, ',', "\r\n", "\"");
    file.push_str("\"é\",2,3,4,5,6");
    let expected = checked("a.csv", file.as_bytes());
    assert_eq!(expected.errors, "Incomplete file: Expected 7 columns on row 20001 found 6");
    for size in [1, 7, 4096] {
        let mut rules = rules(&[]);
        rules.limits.min_bytes = 0;
        assert_eq!(check(&rules, "a.csv", None, Slow(file.as_bytes(), size)).unwrap(), expected, "{size}");
    }
}

#[test]
fn sizes_have_bounds() {
    let rules = rules(&[]);
    assert_eq!(refused_size(&rules, 1023).unwrap(), "Expected file to be at least 1KB");
    assert_eq!(refused_size(&rules, 1024), None);
    assert_eq!(refused_size(&rules, 150_000_000), None);
    assert_eq!(refused_size(&rules, 150_000_001).unwrap(), "Expected file to be under 150MB");
    // A size that is known is judged before a byte is read.
    struct Never;
    impl std::io::Read for Never {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("it is read")
        }
    }
    let refused = File::refused("a.csv", "Expected file to be under 150MB");
    assert_eq!(check(&rules, "a.csv", Some(150_000_001), Never).unwrap(), refused);
    assert_eq!(check(&rules, "a.csv", None, std::io::repeat(b'a')).unwrap(), refused);
    let small = check(&rules, "a.csv", None, &b"a,b,c"[..]).unwrap();
    let variables = [("LIMITS__MIN_BYTES", "4"), ("LIMITS__MAX_BYTES", "5"), ("TEXT__MIN_COLUMNS", "2")];
    assert!(check(&self::rules(&variables), "a.csv", None, &b"a,b,"[..]).unwrap().csv_valid);
    assert_eq!(small, File::refused("a.csv", "Expected file to be at least 1KB"));
}

#[test]
fn json_is_let_in_if_it_is_json() {
    let members = "\"id\": 1, \"stationId\": 1, \"name\": \"n\", \"addressLine1\": \"\", \"addressLine2\": \"\",
        \"addressLine3\": \"\", \"addressLine4\": \"\", \"addressLine5\": \"\", \"addressPostCode\": \"\", \"addressUprn\": \"\",
        \"latitude\": 1.5, \"longitude\": null, \"defaultStationId\": 1, \"pollingDistricts\": [{\"a\": [1]}]";
    let station = |properties: &str| format!("{{{members}, \"properties\": {properties}}}");
    let stations = format!("[{}, {}]", station("[1, {}, []]"), station("[1, 2, 3]"));
    assert_eq!(checked("a.json", stations.as_bytes()), valid("a.json", 6, "utf-8", "FCS"));
    let other = format!("[{{{members}}}, {}]", station("[1]"));
    for text in [other.as_str(), "[]", "{\"properties\": [1]}", "1", "\"text\"", "null", "[1, [2]]"] {
        assert_eq!(checked("a.json", text.as_bytes()), valid("a.json", 0, "utf-8", "unknown"), "{text}");
    }
    assert_eq!(checked("a.json", "\u{feff}[]".as_bytes()), valid("a.json", 0, "utf-8", "unknown"));
    assert_eq!(checked("a.json", b"[{\"id\": \"\xff\"}]").errors, "The file is not UTF-8");
    for (text, why) in [("", "EOF"), ("{\"a\": ", "EOF"), ("[1] 2", "trailing"), ("nope", "expected")] {
        let found = checked("a.json", text.as_bytes());
        assert!(!found.csv_valid && found.errors.contains(why), "{text}: {found:?}");
    }
}

#[test]
fn a_kind_may_need_several_files() {
    let rules = rules(&[]);
    let file = |key: &str, kind: &str| valid(key, 20, "utf-8", kind);
    let mut both = [file("a", DEMOCRACY_COUNTS), file("b", DEMOCRACY_COUNTS)];
    check_set(&rules, &mut both);
    assert!(both.iter().all(|file| file.csv_valid));
    let mut one = [file("a", DEMOCRACY_COUNTS)];
    check_set(&rules, &mut one);
    assert_eq!((one[0].csv_valid, one[0].errors.as_str()), (false, "Expected 2 files, found 1"));
    // The other one may be refused for something else.
    let small = File::refused("b", "Expected file to be at least 1KB");
    let mut both = [file("a", DEMOCRACY_COUNTS), small.clone()];
    check_set(&rules, &mut both);
    assert_eq!(both, [file("a", DEMOCRACY_COUNTS), small]);
    let mut cut = File::refused("a", "Incomplete file");
    cut.ems = DEMOCRACY_COUNTS.into();
    let mut cut = [cut];
    check_set(&rules, &mut cut);
    assert_eq!(cut[0].errors, "Incomplete file\nExpected 2 files, found 1");
}

#[test]
fn rules_that_cannot_be_meant_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gate.toml");
    let kind = |more: &str| format!("[[kind]]\nname = \"a\"\n{more}\n");
    for (text, words) in [
        ("[limits]\nmin_byte = 1".into(), ["limits.min_byte", "unknown field"]),
        ("[limits]\nmin_bytes = 2\nmax_bytes = 1".into(), ["limits.min_bytes", "more than limits.max_bytes"]),
        ("[text]\ndelimiters = [\"é\"]".into(), ["text.delimiters", "characters of ASCII"]),
        ("[text]\nblank_rows = \"skip\"".into(), ["text.blank_rows", "expected `ignore` or `error`"]),
        (kind(""), ["kind[0]", "write one of"]),
        (kind("first_column = \"a\"\nany_column = \"b\""), ["kind[0]", "write one of"]),
        (kind("first_column = \"a\"\nfiles = 0"), ["kind[0].files", "one file or more"]),
        (
            kind("first_column = \"a\"") + &kind("first_column = \"A\""),
            ["gate.toml, line 6: kind[1].first_column", "a has the same"],
        ),
        (
            kind("json = { array_of = [\"a\"], count = \"b\" }")
                + &kind("json = { array_of = [\"c\", \"a\"], count = \"b\" }"),
            ["kind[1].json", "a fits all of these before"],
        ),
        (
            "[issue]\ntitle = \"{nobody}\"".into(),
            ["gate.toml, line 2: issue.title", "nothing gives {nobody}; there are area, date, name"],
        ),
        ("[drop]\nlayout = \"{area}\"".into(), ["gate.toml, line 2: drop.layout", "it ends in /{file}"]),
        (
            "[drop]\nbucket = \"a\"\n[final]\nbucket = \"a\"".into(),
            ["gate.toml, line 4: final.bucket", "it is drop.bucket"],
        ),
        ("[limits]\nexempt = { place = [\"a\"] }".into(), ["limits.exempt.place", "drop.layout has no such name"]),
        ("[mail]\nfrom = \"a@example.com\"".into(), ["gate.toml, line 1: mail", "write both from and to"]),
        ("[webhook]\nurl = \"example.com\"".into(), ["gate.toml, line 2: webhook.url", "https://"]),
        ("[issue]\ntitle = \"{area\"".into(), ["gate.toml, line 2: issue.title", "a brace is not closed"]),
        ("[names]\nmember = \"name\"".into(), ["gate.toml, line 2: names.member", "JSON pointer"]),
        ("[limits\n".into(), ["gate.toml, line 1", ""]),
    ] {
        std::fs::write(&file, &text).unwrap();
        let error = Rules::read(Some(&file), std::iter::empty()).unwrap_err().to_string();
        assert!(error.contains("gate.toml") && words.iter().all(|word| error.contains(word)), "{text}: {error}");
    }
}

#[test]
fn what_is_no_text_is_refused() {
    // An archive with one stored file, as `zip -0` makes it.
    let zip = b"PK\x03\x04\x0a\0\0\0\0\0\x4e\x7c\x3d\x50\x1a\x2c\x8b\x6d\x06\0\0\0\x06\0\0\0\x08\0\x1c\0data.csva,b,c\nPK\x01\x02\x1e\x03";
    let file = checked("a.csv", &zip.repeat(8));
    assert!(!file.csv_valid && file.errors.starts_with("File has only "), "{file:?}");
}

#[test]
fn an_extended_report_says_where_a_row_is_and_what_a_file_is() {
    let rules = rules(&[("REPORT__EXTENDED", "true"), ("LIMITS__MIN_BYTES", "0")]);
    let more = |key: &str, bytes: &[u8]| check(&rules, key, None, bytes).unwrap().more.unwrap();

    // A row of three lines, a blank one, and one that lacks a field.
    let file = "\u{feff}a\tb\tc\r\n1\t\"x\r\ny\r\nz\"\t3\r\n\r\n4\t5\r\n";
    let found = more("a.tsv", file.as_bytes());
    assert_eq!((found.delimiter, found.bom, found.columns), (Some('\t'), true, Some(3)));
    assert_eq!(found.first_bad_row, Some(BadRow { row: 4, line: 6, column: 3 }));
    // As `sha256sum` says it.
    assert_eq!(found.sha256, "39a120b72d6c5021dc01ca5b4a0883b1d7c2d693fcf9a300e3f1e64ee197efc4");
    assert_eq!(found.warnings, Vec::<String>::new());

    let file = format!("a,b,c\n1,\"{}\",3\n4,5,6\n", "swallowed\n".repeat(68));
    assert_eq!(more("a.csv", file.as_bytes()).warnings, ["Row 2 has 69 lines. Is a quote not closed?"]);

    for (bytes, kind) in [
        (&b"PK\x03\x04 anything"[..], Some("zip")),
        (b"PK\x03\x04 [Content_Types].xml", Some("xlsx")),
        (b"%PDF-1.7\n", Some("pdf")),
        (b"\x00\x00\x27\x0a", Some("shapefile")),
        (b"a,b,c\n", None),
    ] {
        assert_eq!(more("a.csv", bytes).content_kind.as_deref(), kind);
    }
    assert!(more("a.json", b"\xef\xbb\xbf[]").bom);

    // Beside the members that readers always knew, and in their order.
    let file = check(&rules, "a.csv", None, &b"a,b,c\n"[..]).unwrap();
    let text = serde_json::to_string(&file).unwrap();
    assert!(text.contains(r#""errors":"","key":"a.csv","delimiter":",","bom":false,"sha256":"#), "{text}");
    assert_eq!(serde_json::from_str::<File>(&text).unwrap(), file);
    assert_eq!(
        serde_json::from_str::<File>(&serde_json::to_string(&valid("a", 1, "utf-8", "x")).unwrap()).unwrap().more,
        None
    );
}
