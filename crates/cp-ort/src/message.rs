//! The library's messages, without what only its authors can use.

/// `message` as one line: no stack, no places in the library's sources, no C++ signatures.
pub(crate) fn one_line(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.trim_start().starts_with("Stacktrace"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let mut text = words.join(" ");
    while let Some((start, end)) = place(&text) {
        text.replace_range(start..end, "");
    }
    text.trim().to_owned()
}

/// Bytes of the first place in the sources: `/src/reshape_helper.h:91 void ns::Type::function(int, bool) const [with T = float] `,
/// or, where the library has shortened it, `matmul_helper.h:59 Compute `.
fn place(text: &str) -> Option<(usize, usize)> {
    let mut start = 0;
    for word in text.split(' ') {
        let end = start + word.len();
        // `failed:/src/file.h:46` has the place behind a colon.
        let from = word.find(":/").map_or(0, |colon| colon + 1);
        let word = &word[from..];
        if is_location(word) {
            let rest = &text[end..];
            let after = if word.starts_with('/') { signature(rest) } else { identifier(rest) };
            return Some((start + from, end + after));
        }
        start = end + 1;
    }
    None
}

/// `file.cc:31` or `/folder/file.h:5`.
fn is_location(word: &str) -> bool {
    let Some((file, line)) = word.rsplit_once(':') else { return false };
    !line.is_empty()
        && line.bytes().all(|byte| byte.is_ascii_digit())
        && [".cc", ".h", ".hpp", ".cpp", ".inc"].iter().any(|kind| file.ends_with(kind))
}

/// Bytes of the name of a function that `rest` starts with, spaces included.
fn identifier(rest: &str) -> usize {
    let word = rest.trim_start().split(' ').next().unwrap_or("");
    let is_name = word.chars().all(|c| c.is_alphanumeric() || "_:~()".contains(c));
    if word.is_empty() || !is_name {
        return rest.len() - rest.trim_start().len();
    }
    let taken = rest.len() - rest.trim_start().len() + word.len();
    taken + usize::from(rest[taken..].starts_with(' '))
}

/// Bytes of the signature of a function that `rest` starts with, spaces included.
fn signature(rest: &str) -> usize {
    let Some(open) = rest.find('(') else { return identifier(rest) };
    let Some(mut at) = balanced(rest, open) else { return identifier(rest) };
    // What follows without a space: a second pair of `operator()(…)`, a lambda's `::<lambda(int)>`.
    while let Some(next) = rest[at..].chars().next().filter(|next| *next != ' ') {
        at = match next {
            '(' | '<' | '[' => balanced(rest, at).unwrap_or(rest.len()),
            _ => at + next.len_utf8(),
        };
    }
    if rest[at..].starts_with(" const") {
        at += " const".len();
    }
    if rest[at..].starts_with(" [with ") {
        at = balanced(rest, at + 1).unwrap_or(rest.len());
    }
    at + usize::from(rest[at..].starts_with(' '))
}

/// The byte behind the bracket that closes the one at `open`.
fn balanced(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text[open..].char_indices() {
        match c {
            '(' | '[' | '<' | '{' => depth += 1,
            ')' | ']' | '>' | '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(open + at + c.len_utf8());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_library() {
        let check = |message: &str, expected: &str| assert_eq!(one_line(message), expected);
        check(
            "Load model from /tmp/m.onnx failed:Protobuf parsing failed.",
            "Load model from /tmp/m.onnx failed:Protobuf parsing failed.",
        );
        check(
            "running MatMul node. Name:'mm' Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch",
            "running MatMul node. Name:'mm' Status Message: MatMul dimension mismatch",
        );
        check(
            "Name:'rs' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:91 \
             onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, onnxruntime::TensorShapeVector&, bool) \
             input_shape_size == requested_shape_size was false. Input shape:{2,3}, requested shape:{5,7}\n",
            "Name:'rs' Status Message: input_shape_size == requested_shape_size was false. Input shape:{2,3}, requested shape:{5,7}",
        );
        check(
            "/a/b.cc:12 onnxruntime::common::Status ns::Op<T>::Compute(ns::Context*) const [with T = std::vector<float>] \
             x > 0 was false.\nStacktrace:\n  frame (1)",
            "x > 0 was false.",
        );
        check(
            "Load model from /tmp/m.onnx failed:/src/core/model_load_utils.h:46 void ns::ValidateOpset(const \
             std::unordered_map<std::__cxx11::basic_string<char>, int>&, const ns::Logger&, bool) Current support is till opset 28.",
            "Load model from /tmp/m.onnx failed:Current support is till opset 28.",
        );
        check("/a/b.cc:1 ns::f(int)::<lambda(long int)> twice /c/d.h:2 ns::g() over", "twice over");
        check("/a/b.cc:1 auto ns::S::operator()(int) const went wrong", "went wrong");
        check("/a/b.cc:1", "");
        check("/a/b.cc:1 f(unclosed", "");
        check("a time of 12:30 and (unclosed", "a time of 12:30 and (unclosed");
    }
}
