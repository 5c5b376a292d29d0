# Turns block-style cloud-config into lines "key<TAB>value", one per scalar or list item; a key whose value has a
# form that is not understood (a mapping, a flow list, a block scalar) comes out as "key (form)".
function plain(text) {
    sub(/^[ ]+/, "", text)
    if (text ~ /^".*"$/) { text = substr(text, 2, length(text) - 2); gsub(/\\"/, "\"", text); gsub(/\\\\/, "\\", text) }
    else if (text ~ /^'.*'$/) { text = substr(text, 2, length(text) - 2); gsub(/''/, "'", text) }
    else { sub(/[ ]+#.*$/, "", text); sub(/[ ]+$/, "", text) }
    return text
}
function odd() { if (key != "" && !told) { print key " (this form of it)\t"; told = 1 } }
{ sub(/\r$/, "") }
/^[ ]*(#|$)/ || /^---/ { next }
/^[A-Za-z_][A-Za-z0-9_]*:/ {
    key = $0; sub(/:.*/, "", key)
    rest = plain(substr($0, length(key) + 2))
    told = 0
    if (rest ~ /^[\[{|>&*!]/) odd()
    else if (rest != "") print key "\t" rest
    next
}
/^[ ]*- / && key != "" && !told {
    item = $0; sub(/^[ ]*- /, "", item)
    if (item ~ /^[ ]*[\[{|>&*!]/ || item ~ /^[ ]*[A-Za-z_]+:( |$)/ || item ~ /^[ ]*- /) odd()
    else print key "\t" plain(item)
    next
}
{ odd() }
