# Flattens a JSON document into lines "path<TAB>value": {"a":{"b":[1,"x"]}} gives a.b.0<TAB>1 and a.b.1<TAB>x.
# Line ends inside strings become spaces; \u escapes below 128 become their character, others a question mark.
# A document that is not JSON ends with status 1.
function fail() { bad = 1; exit 1 }
function blank() { while (at <= length(text) && index(" \t\r\n", substr(text, at, 1))) at++ }
function hex(four,   i, n) {
    n = 0
    for (i = 1; i <= 4; i++) n = n * 16 + index("0123456789abcdef", tolower(substr(four, i, 1))) - 1
    return n
}
function string(   out, c, n, rest) {
    at++
    out = ""
    while (1) {
        rest = substr(text, at)
        n = match(rest, /["\\]/)
        if (!n) fail()
        out = out substr(rest, 1, n - 1)
        c = substr(rest, n, 1)
        at += n
        if (c == "\"") break
        c = substr(text, at++, 1)
        if (c == "n" || c == "r" || c == "t" || c == "b" || c == "f") out = out " "
        else if (c == "u") {
            n = hex(substr(text, at, 4)); at += 4
            out = out (n >= 32 && n < 127 ? sprintf("%c", n) : n < 32 ? " " : "?")
        } else out = out c
    }
    gsub(/[\t\r\n]/, " ", out)
    sub(/ +$/, "", out)
    return out
}
function value(path, depth,   c, key, n, rest) {
    if (depth > 32) fail()
    blank()
    c = substr(text, at, 1)
    if (c == "\"") { print path "\t" string(); return }
    if (c == "{" || c == "[") {
        at++
        blank()
        n = 0
        if (substr(text, at, 1) == (c == "{" ? "}" : "]")) { at++; return }
        while (1) {
            key = n++
            blank()
            if (c == "{") {
                if (substr(text, at, 1) != "\"") fail()
                key = string()
                blank()
                if (substr(text, at++, 1) != ":") fail()
            }
            value(path == "" ? key : path "." key, depth + 1)
            blank()
            rest = substr(text, at++, 1)
            if (rest == (c == "{" ? "}" : "]")) return
            if (rest != ",") fail()
        }
    }
    rest = substr(text, at)
    if (!match(rest, /^[-+.0-9a-zA-Z]+/)) fail()
    at += RLENGTH
    print path "\t" substr(rest, 1, RLENGTH)
}
{ text = text $0 "\n" }
END {
    if (bad) exit 1
    at = 1
    value("", 0)
    blank()
    if (at <= length(text)) exit 1
}
