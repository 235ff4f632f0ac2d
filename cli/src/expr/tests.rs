use super::*;
use proptest::prelude::*;

fn parsed(source: &str) -> Expr {
    parse(source).unwrap_or_else(|error| panic!("{source}: {error}"))
}

fn kind(source: &str) -> ExprKind {
    parsed(source).kind
}

/// The printed tree, which shows structure without spans.
fn print(source: &str) -> String {
    parsed(source).to_string()
}

fn fault(source: &str) -> String {
    match parse(source) {
        Ok(expr) => panic!("{source} parsed as {expr}"),
        Err(error) => error.to_string(),
    }
}

fn int(text: &str) -> ExprKind {
    ExprKind::Int(text.parse().unwrap())
}

fn str(text: &str) -> ExprKind {
    ExprKind::Str(text.into())
}

#[test]
fn names_and_constants() {
    assert_eq!(kind("x"), ExprKind::Name("x".into()));
    assert_eq!(kind(" _x1 "), ExprKind::Name("_x1".into()));
    assert_eq!(kind("größe"), ExprKind::Name("größe".into()));
    for source in ["None", "none", "null"] {
        assert_eq!(kind(source), ExprKind::None);
    }
    for source in ["True", "true"] {
        assert_eq!(kind(source), ExprKind::Bool(true));
    }
    for source in ["False", "false"] {
        assert_eq!(kind(source), ExprKind::Bool(false));
    }
    // No literals: a peer may have roots of these names.
    for source in ["inf", "nan", "NULL", "TRUE", "b", "B"] {
        assert_eq!(kind(source), ExprKind::Name(source.into()));
    }
}

#[test]
fn integers() {
    for (source, value) in [
        ("0", "0"),
        ("00_0", "0"),
        ("-0", "0"),
        ("42", "42"),
        ("- 42", "-42"),
        ("1_000_000", "1000000"),
        ("0x1F", "31"),
        ("0X_ff", "255"),
        ("0o17", "15"),
        ("0b10_10", "10"),
        ("-0b1", "-1"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551616", "18446744073709551616"),
        ("-0xffffffffffffffffffff", "-1208925819614629174706175"),
        (
            "123456789012345678901234567890123456789012345678901234567890",
            "123456789012345678901234567890123456789012345678901234567890",
        ),
    ] {
        assert_eq!(kind(source), int(value), "{source}");
    }
}

#[test]
fn floats() {
    for (source, value) in [
        ("0.5", 0.5),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e9", 1e9),
        ("1E+9", 1e9),
        ("1.5e-3", 1.5e-3),
        ("1_0.0_1", 10.01),
        ("007.5", 7.5),
        ("1.e2", 100.0),
        ("5e-324", 5e-324),
        ("1.7976931348623157e308", f64::MAX),
    ] {
        assert_eq!(kind(source), ExprKind::Float(value), "{source}");
    }
    let ExprKind::Float(zero) = kind("-0.0") else { panic!("a float") };
    assert!(zero == 0.0 && zero.is_sign_negative());
}

#[test]
fn bad_numbers() {
    for (source, message) in [
        ("1e999", "column 1: 1e999 is too large for a float"),
        ("12abc", "column 1: '12abc' is not a number"),
        ("1e", "column 1: '1e' is not a number"),
        ("1e+", "column 1: '1e' is not a number"),
        ("1_", "column 1: '_' is misplaced in '1_'"),
        ("1__0", "column 1: '_' is misplaced in '1__0'"),
        ("1_e5", "column 1: '_' is misplaced in '1_e5'"),
        ("1_.5", "column 1: '_' is misplaced in '1_.5'"),
        ("0x", "column 1: '0x' is not a hexadecimal number"),
        ("0xfg", "column 1: '0xfg' is not a hexadecimal number"),
        ("0x__f", "column 1: '_' is misplaced in '0x__f'"),
        ("0o8", "column 1: '0o8' is not an octal number"),
        ("0b2", "column 1: '0b2' is not a binary number"),
        ("007", "column 1: an integer may not start with 0 (octal is written 0o17)"),
        ("5.real", "column 1: '5.real' is not a number; for a member of a number write (5).real"),
        ("-5.5.x", "column 5: put the negative number in parentheses, as in (-5).name"),
        ("- x", "column 1: '-' may only stand before a number"),
        ("--5", "column 1: '-' may only stand before a number"),
        ("٣", "column 1: unexpected character '٣'"),
        ("1٣", "column 1: '1٣' is not a number"),
    ] {
        assert_eq!(fault(source), message, "{source}");
    }
}

#[test]
fn strings() {
    assert_eq!(kind(r#""a'b""#), str("a'b"));
    assert_eq!(kind(r#"'a"b'"#), str("a\"b"));
    assert_eq!(kind(r#"'\n\r\t\0\\\'\"'"#), str("\n\r\t\0\\'\""));
    assert_eq!(kind(r#"'\x41\xe9\u00e9\u{1F600}\u{9}'"#), str("Aéé😀\t"));
    assert_eq!(kind("'héllo 😀'"), str("héllo 😀"));
    assert_eq!(kind("''"), str(""));
    assert_eq!(kind("'a\nb'"), str("a\nb"));
}

#[test]
fn bytes() {
    let bytes = |source| match kind(source) {
        ExprKind::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes("b''"), b"");
    assert_eq!(bytes(r#"b"a\x00\xff\n'\"""#), b"a\x00\xff\n'\"");
    assert_eq!(bytes(r"B'\0\\'"), b"\0\\");
    for (source, message) in [
        ("b'é'", "column 3: 'é' is not ASCII: bytes above 7f are written \\xNN"),
        (r"b'\u0041'", "column 3: bytes have no \\u escapes, only \\xNN"),
        ("b'a", "column 1: the bytes literal that starts here is not closed"),
        ("b'a\\", "column 1: the bytes literal that starts here is not closed"),
    ] {
        assert_eq!(fault(source), message, "{source}");
    }
}

#[test]
fn bad_strings() {
    for (source, message) in [
        ("f('a", "column 3: the string that starts here is not closed"),
        ("'a\\", "column 1: the string that starts here is not closed"),
        ("'a\\'", "column 1: the string that starts here is not closed"),
        (r"'\q'", "column 2: unknown escape \\q"),
        ("'\\\n'", "column 2: unknown escape \\\\n"),
        (r"'\x4'", "column 2: \\x takes 2 hex digits"),
        (r"'\u12'", "column 2: \\u takes 4 hex digits"),
        (r"'\u{}'", "column 2: \\u{...} takes 1 to 6 hex digits"),
        (r"'\u{1234567}'", "column 2: \\u{...} takes 1 to 6 hex digits"),
        (r"'\u{12", "column 2: \\u{...} takes 1 to 6 hex digits"),
        (r"'\u{110000}'", "column 2: U+110000 is no character"),
        (
            r"'\ud83d\ude00'",
            "column 2: U+D83D is no character: half of a surrogate pair; write the whole as \\u{1f600}",
        ),
        (r"'\012'", "column 2: there are no octal escapes: write \\x00 before a digit"),
        ("r'a'", "column 1: unknown string prefix 'r': only b\"...\" is known"),
        ("f(“a”)", "column 3: unexpected “: strings stand in straight quotes, \" or '"),
    ] {
        assert_eq!(fault(source), message, "{source}");
    }
}

#[test]
fn containers() {
    assert_eq!(print("[]"), "[]");
    assert_eq!(print("[1, 'a', [x],]"), r#"[1, "a", [x]]"#);
    assert_eq!(print("()"), "()");
    assert_eq!(print("(1)"), "1");
    assert_eq!(print("((1))"), "1");
    assert_eq!(print("(1,)"), "(1,)");
    assert_eq!(print("(1,2,)"), "(1, 2)");
    assert_eq!(print("((1, 2))"), "(1, 2)");
    assert_eq!(print("{}"), "{}");
    assert_eq!(print("{'a': 1, 2: (), 'a': x.y,}"), r#"{"a": 1, 2: (), "a": x.y}"#);
    for (source, message) in [
        ("[,]", "column 2: expected an expression, found ','"),
        ("(,)", "column 2: expected an expression, found ','"),
        ("[1,,2]", "column 4: expected an expression, found ','"),
        ("[1 2]", "column 4: expected ',' or ']', found a number"),
        ("(1, 2]", "column 6: expected ',' or ')', found ']'"),
        ("{1, 2}", "column 3: expected ':' and a value (a map is {key: value}), found ','"),
        ("{1: }", "column 5: expected an expression, found '}'"),
        ("[1", "column 1: the bracket that opens here is not closed"),
        ("[1,", "column 1: the bracket that opens here is not closed"),
        ("f(", "column 2: the bracket that opens here is not closed"),
        ("{1", "column 1: the bracket that opens here is not closed"),
    ] {
        assert_eq!(fault(source), message, "{source}");
    }
}

#[test]
fn chains_are_flat() {
    let ExprKind::Chain { head, steps } = kind("a.b(1)[2].c()") else { panic!("a chain") };
    assert_eq!(head.kind, ExprKind::Name("a".into()));
    assert_eq!(steps.len(), 5);
    assert_eq!(print("((a.b)(1)).c"), "a.b(1).c");
    assert_eq!(print("'a'.upper()"), r#""a".upper()"#);
    assert_eq!(print("(1, 2)[0]"), "(1, 2)[0]");
    assert_eq!(print("(-5).x"), "(-5).x");
    assert_eq!(print("1.2.real"), "(1.2).real");
    assert_eq!(print("a . b ( 1 ) [ 2 ]"), "a.b(1)[2]");
    assert_eq!(print("a\n.b\t()\r\n"), "a.b()");
    assert_eq!(print("a.none.True.null"), "a.none.True.null");
    assert_eq!(print("a[1, 2]"), "a[(1, 2)]");
    assert_eq!(print("a[1,]"), "a[(1,)]");
    assert_eq!(print("a[-1]"), "a[-1]");
    // Long chains neither recurse nor overflow.
    let long = format!("a{}", ".b[0]()".repeat(100_000));
    assert_eq!(print(&long), long);
}

#[test]
fn arguments() {
    let ExprKind::Chain { steps, .. } = kind("f(1, g(2), n=3, none=4,)") else { panic!("a chain") };
    let StepKind::Call(args) = &steps[0].kind else { panic!("a call") };
    assert_eq!(args.positional.len(), 2);
    let names = args.keyword.iter().map(|(name, _)| name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["n", "none"]);
    assert_eq!(print("f(a = b, c=d)"), "f(a=b, c=d)");
    for (source, message) in [
        ("f(a=1, 2)", "column 8: a positional argument may not follow a keyword argument"),
        ("f(a=1, b=2, a=3)", "column 13: keyword argument 'a' is given twice"),
        ("f(,)", "column 3: expected an expression, found ','"),
        ("f(1=2)", "column 4: expected ',' or ')', found '='"),
        ("f(a==1)", "column 5: expected an expression, found '='"),
        ("f(*a)", "column 3: unexpected '*': there are no operators"),
    ] {
        assert_eq!(fault(source), message, "{source}");
    }
}

#[test]
fn faults_name_the_place() {
    for (source, message) in [
        ("", "column 1: the expression is empty"),
        ("  ", "column 3: the expression is empty"),
        ("a b", "column 3: expected the end, found the name 'b'"),
        ("a.", "column 3: expected a name after '.', found the end"),
        ("a.5", "column 2: expected the end, found a number"),
        ("a.'b'", "column 3: expected a name after '.', found a string"),
        ("a..b", "column 3: expected a name after '.', found '.'"),
        ("a[]", "column 3: a key is missing between '[' and ']'"),
        ("a[1:2]", "column 4: slices are not supported"),
        ("a[:]", "column 3: slices are not supported"),
        ("a)", "column 2: ')' closes nothing"),
        ("x = 1", "column 3: unexpected '=': there is no assignment"),
        ("a - 1", "column 3: unexpected '-': there are no operators"),
        ("f(a-1)", "column 4: unexpected '-': there are no operators"),
        ("a + 1", "column 3: unexpected '+': there are no operators"),
        ("a; b", "column 2: unexpected character ';'"),
        ("a\0", "column 2: unexpected character '\\0'"),
        ("größe ?", "column 7: unexpected character '?'"),
        ("f(\n  1,\n  ?)", "line 3, column 3: unexpected character '?'"),
    ] {
        assert_eq!(fault(source), message, "{source:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [("(", ",)"), ("[", "]"), ("{1:", "}"), ("f(", ")"), ("a[", "]")] {
        let nested = |depth| format!("{}x{}", open.repeat(depth), close.repeat(depth));
        let deepest = nested(MAX_DEPTH);
        assert_eq!(parsed(&print(&deepest)).to_string(), print(&deepest));
        let message = fault(&nested(MAX_DEPTH + 1));
        assert!(message.ends_with("brackets nest more than 64 deep"), "{message}");
        fault(&open.repeat(100_000));
    }
    // Side by side is not nested.
    parsed(&format!("[{}]", "(1,),".repeat(1000)));
}

#[test]
fn spans_cover_what_they_name() {
    let source = "f(aé, [1, 'x'], k=(b.c)).d[ -2 ]";
    let text = |span: Span| &source[span.start..span.end];
    let expr = parsed(source);
    assert_eq!(text(expr.span), source);
    let ExprKind::Chain { head, steps } = &expr.kind else { panic!("a chain") };
    assert_eq!(text(head.span), "f");
    assert_eq!(text(steps[0].span), "(aé, [1, 'x'], k=(b.c))");
    assert_eq!(text(steps[1].span), ".d");
    let StepKind::Item(key) = &steps[2].kind else { panic!("an item") };
    assert_eq!(text(key.span), "-2");
    let StepKind::Call(args) = &steps[0].kind else { panic!("a call") };
    assert_eq!(text(args.positional[0].span), "aé");
    assert_eq!(text(args.positional[1].span), "[1, 'x']");
    assert_eq!(text(args.keyword[0].1.span), "(b.c)");
}

#[test]
fn carets_stand_below_the_place() {
    let show = |source: &str, start, end| Span::new(start, end).point_at(source);
    assert_eq!(show("open(x).y", 5, 6), "open(x).y\n     ^");
    assert_eq!(show("abc", 0, 3), "abc\n^^^");
    assert_eq!(show("abc", 3, 3), "abc\n   ^");
    assert_eq!(show("", 0, 0), "\n^");
    assert_eq!(show("f('日本', x)", 12, 13), "f('日本', x)\n          ^");
    assert_eq!(show("f(\n\t?,\n)", 4, 5), " ?,\n ^");
    assert_eq!(show("a\u{1b}[1m b", 6, 7), "a\u{fffd}[1m b\n      ^");
    // A place of more than one line is shown where it starts.
    assert_eq!(show("f(\n1)", 1, 5), "f(\n ^");
    // Places that are not on a character boundary, or beyond the end.
    assert_eq!(show("é", 1, 2), "é\n^");
    assert_eq!(show("a", 70, 90), "a\n ^");

    let long = format!("{}X{}", "a".repeat(500), "b".repeat(500));
    let shown = show(&long, 500, 501);
    let (line, carets) = shown.split_once('\n').unwrap();
    assert_eq!(line, format!("…{}X{}…", "a".repeat(39), "b".repeat(35)));
    assert_eq!(carets, format!("{}^", " ".repeat(40)));
    let all = show(&long, 0, 1001);
    let (line, carets) = all.split_once('\n').unwrap();
    assert_eq!((line.chars().count(), carets.len()), (77, 76));
}

/// Trees as the parser makes them: heads are no chains, chains have steps.
fn trees() -> impl Strategy<Value = Expr> {
    let name = "[a-z_é][a-zA-Z0-9_]{0,5}"
        .prop_filter("a name", |name| !matches!(name.as_str(), "none" | "null" | "true" | "false"));
    let leaf = prop_oneof![
        Just(ExprKind::None),
        any::<bool>().prop_map(ExprKind::Bool),
        any::<i128>().prop_map(|value| ExprKind::Int(value.into())),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(ExprKind::Float),
        any::<String>().prop_map(ExprKind::Str),
        any::<Vec<u8>>().prop_map(ExprKind::Bytes),
        name.clone().prop_map(ExprKind::Name),
    ];
    leaf.prop_map(placeless).prop_recursive(4, 40, 4, move |inner| {
        let many = || prop::collection::vec(inner.clone(), 0..4);
        let keyword = prop::collection::btree_map(name.clone(), inner.clone(), 0..3);
        let step = prop_oneof![
            "[a-zA-Z_]{1,5}".prop_map(StepKind::Attr),
            inner.clone().prop_map(StepKind::Item),
            (many(), keyword).prop_map(|(positional, keyword)| {
                let keyword = keyword.into_iter().collect();
                StepKind::Call(Args { positional, keyword })
            }),
        ];
        let step = step.prop_map(|kind| Step { kind, span: Span::new(0, 0) });
        prop_oneof![
            many().prop_map(ExprKind::List),
            many().prop_map(ExprKind::Tuple),
            prop::collection::vec((inner.clone(), inner.clone()), 0..3).prop_map(ExprKind::Map),
            (inner.clone(), prop::collection::vec(step, 1..4)).prop_map(|(head, mut more)| {
                match head.kind {
                    ExprKind::Chain { head, mut steps } => {
                        steps.append(&mut more);
                        ExprKind::Chain { head, steps }
                    }
                    _ => ExprKind::Chain { head: Box::new(head), steps: more },
                }
            }),
        ]
        .prop_map(placeless)
    })
}

fn placeless(kind: ExprKind) -> Expr {
    Expr { kind, span: Span::new(0, 0) }
}

/// Sets every span to 0..0, so that trees from different texts compare.
fn strip(expr: &mut Expr) {
    expr.span = Span::new(0, 0);
    match &mut expr.kind {
        ExprKind::List(items) | ExprKind::Tuple(items) => items.iter_mut().for_each(strip),
        ExprKind::Map(pairs) => pairs.iter_mut().for_each(|(key, value)| {
            strip(key);
            strip(value);
        }),
        ExprKind::Chain { head, steps } => {
            strip(head);
            for step in steps {
                step.span = Span::new(0, 0);
                match &mut step.kind {
                    StepKind::Attr(_) => {}
                    StepKind::Item(key) => strip(key),
                    StepKind::Call(args) => {
                        args.positional.iter_mut().for_each(strip);
                        args.keyword.iter_mut().for_each(|(_, value)| strip(value));
                    }
                }
            }
        }
        _ => {}
    }
}

fn check_any(source: &str) {
    match parse(source) {
        Ok(mut expr) => {
            let mut again = parsed(&expr.to_string());
            strip(&mut expr);
            strip(&mut again);
            assert_eq!(expr, again);
        }
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            error.span.point_at(source);
        }
    }
}

proptest! {
    #[test]
    fn printed_trees_parse_back(tree in trees()) {
        let printed = tree.to_string();
        let mut again = parsed(&printed);
        strip(&mut again);
        prop_assert_eq!(&again, &tree);
        prop_assert_eq!(again.to_string(), printed);
    }

    #[test]
    fn no_text_panics(source in any::<String>()) {
        check_any(&source);
    }

    #[test]
    fn no_near_miss_panics(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "a", "b", "None", "true", "1", "0x1f", "1.5", "1e", "5.", "-", ".", ",", ":", "=", "(",
                ")", "[", "]", "{", "}", "'", "\"", "b'", "\\", "\\x4", "\\u{", "é", "日", " ", "\n", "_",
            ]),
            0..24,
        )
    ) {
        check_any(&words.concat());
    }

    #[test]
    fn no_cut_panics(tree in trees(), at in any::<prop::sample::Index>()) {
        let printed = tree.to_string();
        let cut = floor_boundary(&printed, at.index(printed.len() + 1));
        check_any(&printed[..cut]);
        check_any(&printed[cut..]);
    }
}
