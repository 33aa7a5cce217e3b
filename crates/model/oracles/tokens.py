"""Token ids of nasty strings, by llama.cpp: what `tests/tokens.rs` compares ours with. For developers only.

    python -m venv v && v/bin/pip install cmake ninja gguf
    CMAKE_ARGS=-DGGML_NATIVE=ON v/bin/pip install llama-cpp-python     # compiles llama.cpp, 5 to 25 minutes
    v/bin/python crates/model/oracles/tokens.py --models MODELS                  # writes tests/golden/tokens
    v/bin/python crates/model/oracles/tokens.py --models MODELS --fuzz 5000 --out /tmp/fuzz
    LITTORAL_TOKENS=/tmp/fuzz cargo test -p littoral-model --test tokens

A golden file is of one vocabulary, with the settings that were changed in it: there is no small model at hand for each
pre-tokeniser, so some vocabularies are asked again under another one's rules. Texts are in `texts.json`, and for each
a golden file has the ids plain, with special tokens parsed, and as a document (bos and eos as the file says); what is
equal to plain is null. `pieces` is FNV-1a over what every token stands for.
"""

import argparse
import ctypes
import json
import os
import random
import tempfile

import gguf
import llama_cpp

HERE = os.path.dirname(os.path.abspath(__file__))
SMOLLM = "smollm2-135m-instruct-q4_1.gguf"
GEMMA = "gemma-3-270m-q4_k_m.gguf"
QWEN = "qwen2.5-coder-0.5b.gguf"

# Name of the golden file, the model's file, keys under tokenizer.ggml that are changed (None: taken away).
VOCABULARIES = [
    ("smollm", SMOLLM, {}),
    ("gemma3", GEMMA, {}),
    ("qwen2", QWEN, {}),
    ("qwen2_as_gpt-2", QWEN, {"pre": "gpt-2"}),
    ("qwen2_as_llama-bpe", QWEN, {"pre": "llama-bpe", "add_bos_token": None}),
    ("qwen2_as_default", QWEN, {"pre": "default"}),
    ("gemma3_as_llama2", GEMMA, {"add_space_prefix": None, "add_bos_token": None, "add_eos_token": True}),
]

SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "<|file_sep|>", "<tool_call>", "</tool_call>",
    "<repo_name>", "<empty_output>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>",
    "<unused0>", "<unused6241>", "[multimodal]", "<start_of_image>", "<table>", "</table>", "<h1>", "</s>", "<s>", "<0x0A>",
    "[PAD151665]",
]


def texts():
    t = ["", " ", "  ", "   ", "\n", "\r", "\t", "\r\n", "a", " a", "a ", "  a  ", "\u2581", "\u2581a", "a\u2581b", " \u2581 ", "\u2581\u2581\u2581"]
    t += [
        "Hello, world!", "The quick brown fox jumps over the lazy dog.", "I'm you're he'll we've they'd it's can't",
        "I'M YOU'RE HE'LL WE'VE THEY'D IT'S CAN'T", "'s 't 're 've 'm 'll 'd 'S 'Re 'x ''s '", "don\u2019t \u2018quote\u2019",
        "O'Reilly's 'tis rock'n'roll", "\u017f 'ſ 'K", "end with apostrophe'", "a's'b", "''''", "'re're",
    ]
    # Numbers.
    t += [
        "1", "12", "123", "1234", "12345", "1234567890" * 7, "3.14159", "1,000,000.00", "-273.15°C", "0x1F4A9 0b1010 1e-9",
        "٠١٢٣٤٥٦٧٨٩", "१२३४५", "①②③ ⅣⅤ ½ ²³ ₁₂", "1٢3४5", "v1.2.3-rc.4+build5", "12a34b56", " 1 22  333   4444", "１２３４５",
        "2024-07-26T12:34:56.789Z", "(555) 123-4567", "1\n2\n3", "९.९", "12٣45", "123٤567",
    ]
    # White space.
    t += [
        "a b  c   d    e     f", "\n\n", "\n\n\n\n", "a\n\n\nb", "a \n b", "a\r\nb\r\n\r\nc", "\t\t\tindent\n\t\tless\n", "x\t y \t z",
        " \n \n ", "\n \n", "   \n", "\n   ", "trailing   ", "   leading", "a\u00a0b\u00a0\u00a0c", "a\u3000b\u3000", "\u2003em\u2009thin",
        "line\u2028sep\u2029para", "\u0085next\u0085\u0085", "a\u200bb zero width", "\x0b\x0c vertical", "\ufeffbom", "a\r\rb",
        " " * 40 + "x", "\n" * 40 + "x", "\t" * 40 + "x", "x" + " " * 100, " \t \t \n\t ", "a  \u3000 b", "\u1680ogham\u205f",
        ".\n", ". \n", "!\r\n\r\nx", "...\n\n\n...", ";\n  ;\n",
    ]
    # Scripts.
    t += [
        "Größe, Straße, naïve café, Ærøskøbing, Łódź, Ελληνικά, Русский язык, Українська", "Ænglisc þæt wæs gōd cyning",
        "日本語のテキスト、カタカナとひらがな。", "中文文本：你好，世界！", "한국어 텍스트입니다. 안녕하세요?", "العربية: مرحبا بالعالم، كيف حالك؟",
        "עברית: שלום עולם", "हिन्दी में लिखा हुआ पाठ", "தமிழ் மொழி", "ภาษาไทยไม่มีช่องว่าง", "ქართული ენა", "Հայերեն լեզու", "አማርኛ ቋንቋ",
        "བོད་སྐད།", "မြန်မာဘာသာ", "ខ្មែរ", "ລາວ", "සිංහල", "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ᚠᚢᚦᚨᚱᚲ", "𐌲𐌿𐍄𐌹𐍃𐌺", "𒀀𒁀𒂀", "𓀀𓁐𓂀", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚", "ｆｕｌｌｗｉｄｔｈ　ＴＥＸＴ",
        "mixed 中文 and English 混合 text", "日本語 text 123 混在", "ǅ ǈ ǋ titlecase ʰʲ modifiers", "\U00020000\U0002a6d6 rare han", "Việt Nam tiếng Việt",
    ]
    # Emoji.
    t += [
        "😀", "😀😃😄", "👍🏽 👍🏿", "👨‍👩‍👧‍👦 family", "🏳️‍🌈 🏴‍☠️", "🇩🇪🇫🇷🇯🇵", "1️⃣2️⃣#️⃣", "❤️ ❤", "a😀b", "👩🏾‍🚀👩‍❤️‍💋‍👨", "🫠🫨🪿", "\U0001f9d1\u200d\U0001f4bb code",
        "emoji😀😀\n\n😀", "⌚⏰ ☎️ ✂✈", "🤷🏼‍♂️",
    ]
    # Combining marks and strange code points.
    t += [
        "e\u0301 n\u0303 o\u0308", "\u0301alone", "Z\u0351\u036b\u0343a\u0323l\u0347g\u0331o\u0328", "क्षि त्र ज्ञ", "\u202eright to left\u202c", "\u2066iso\u2069",
        "soft\u00adhyphen", "\ue000private\uf8ff", "\U000f0000 plane 15", "\uffff \ufffe nonchars", "\U0010ffff", "\ufffd replacement", "\x01\x02\x1f controls \x7f",
        "\u0378 unassigned \u0379", "x\u20dd y\u20e3", "\u0e33\u0e32", "\u1100\u1161\u11a8 jamo", "ﬁ ﬂ ligature", "Å Å Å",
    ]
    # What looks like broken encodings.
    t += ["Ã©Ã¨ mojibake â€™", "%C3%A9 &eacute; \\u00e9 \\xff", "Ġhello Ċ Ġ", "ĠĠ Ä ĉ", "\x80\x81\xff latin", "<0xE2><0x96><0x81>", "â–\u0081"]
    # Code, markup, addresses.
    t += [
        "def f(x):\n    return x**2 + 1  # square\n\n\nclass A:\n\tpass\n", "for (int i = 0; i < n; ++i) { a[i] += b[i]; }\r\n",
        "fn main() -> Result<(), Box<dyn Error>> { println!(\"{:?}\", x); Ok(()) }", "SELECT * FROM t WHERE a <> 'b''c' -- x",
        "<html><body class=\"x\"><table><tr><td>1</td></tr></table><h1>T</h1></body></html>", "{\"a\": [1, 2.5, null, true], \"b\": {\"c\": \"\\n\"}}",
        "https://example.com/path/to?query=1&x=%20y#frag", "user.name+tag@sub.example.co.uk", "C:\\Users\\x\\file.txt /usr/local/bin/*.so.1",
        "a+=b-=c*=d/=e%=f^=g|=h&=i~j", "!!!???...,,,;;;:::", "$100 €50 £20 ¥1000 ₿1", "#hashtag @mention $TICKER", "-----\n=====\n*****\n#####", "((([[[{{{}}}]]])))",
        "\\frac{a}{b} \\sum_{i=0}^{n} x_i^2 \\leq \\infty", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β → ∅", "| a | b |\n|---|---|\n| 1 | 2 |\n", "```python\nprint('hi')\n```", "snake_case camelCase PascalCase SCREAMING_CASE kebab-case",
        "x=1;y=2;;z", "a->b::c.d()", "«guillemets» „low“ “high” …—–", "~`!@#$%^&*()_+-=[]{}|;':\",./<>?", "^^^~~~|||```",
        "<|", "|>", "<|im", "<|im_start", "im_start|>", "<||im_start||>", "<<|im_start|>>",
    ]
    # Special tokens in the text.
    t += SPECIAL
    t += [
        "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n", "<|im_start|><|im_start|>", " <|im_end|> ", "a<|im_end|>b", "x <|endoftext|>\n\n y",
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "<bos><bos>Hi<eos>", "text<bos> text <eos> text", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
        "<table> <tr>\n<td>x</td>", "  <unused0>  <unused1>", "<|im_start|>" * 5, "<s>[INST] hi [/INST] ok </s>", "<unused62>41>", "\n<bos>\n", "\n\n\n<h1>\n\n</h1>\t\t",
    ]
    # Long words and repetition.
    t += ["a" * 300, "ab" * 150, "aaaa bbbb " * 30, "Donaudampfschifffahrtsgesellschaftskapitän", "pneumonoultramicroscopicsilicovolcanoconiosis", "ha" * 33 + "!", "的" * 64, "=" * 77, "- " * 50, "0" * 65, "é" * 40, "ААААА" * 20, "\u0301" * 30]
    t += ["GGUF" + "".join(chr(c) for c in range(32, 127)), "".join(chr(c) for c in range(0xA0, 0x180))]
    # Every script once, whether anyone wrote a word in it or not.
    t += ["".join(chr(c) for c in range(b, b + 64)) for b in (0x0370, 0x0590, 0x0900, 0x1200, 0x2000, 0x2100, 0x2460, 0x3040, 0xA000, 0xFE20, 0x1D400, 0x1F600)]
    assert len(set(t)) == len(t), [x for x in t if t.count(x) > 1]
    return t


def fuzz(count, seed):
    """Texts of pieces that meet badly. Every assigned code point comes in one of them, between letters, digits and marks."""
    r = random.Random(seed)
    pieces = SPECIAL + [t for t in texts() if 0 < len(t) < 30]
    blocks = [(0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0x1000, 0x1200), (0x2000, 0x2C00), (0x3000, 0x3200), (0x4E00, 0x9FFF), (0xAC00, 0xD7A0), (0x1F300, 0x1FB00)]
    small = list(" \n\r\t'.a1\u2581<>|sS\u0301é\u00a0")

    def piece():
        kind = r.randrange(5)
        if kind == 0:
            return r.choice(pieces)
        if kind == 1:
            return "".join(r.choice(small) for _ in range(r.randrange(1, 12)))
        if kind == 2:
            a, b = r.choice(blocks)
            return "".join(chr(r.randrange(a, b)) for _ in range(r.randrange(1, 8)))
        if kind == 3:
            return r.choice(small) * r.randrange(1, 50)
        return r.choice([" ", "  ", "\n", "'", "the", " and", "ing", "123", "4", "().", " = "])

    found = {"".join(piece() for _ in range(r.randrange(1, 12))) for _ in range(count)}
    found |= {"".join("%sa %s1%s.%s\n" % ((chr(c),) * 4) for c in range(b, b + 64) if not 0xD800 <= c < 0xE000 and c) for b in range(0, 0x32000, 64)}
    return sorted(found)


def open_vocabulary(path, changes):
    """The vocabulary of a file. A changed one is written to a file of its own first, without tensors."""
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    if not changes:
        return llama_cpp.llama_model_load_from_file(path.encode(), params)
    reader = gguf.GGUFReader(path)
    with tempfile.TemporaryDirectory() as folder:
        changed = os.path.join(folder, "vocabulary.gguf")
        writer = gguf.GGUFWriter(changed, reader.fields["general.architecture"].contents())
        for key, field in reader.fields.items():
            name = key.removeprefix("tokenizer.ggml.")
            if not key.startswith("tokenizer.ggml.") or name in changes:
                continue
            kind, item = field.types[0], field.types[-1]
            writer.add_key_value(key, field.contents(), kind, item if kind == gguf.GGUFValueType.ARRAY else None)
        for name, value in changes.items():
            if isinstance(value, bool):
                writer.add_bool(f"tokenizer.ggml.{name}", value)
            elif value is not None:
                writer.add_string(f"tokenizer.ggml.{name}", value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return llama_cpp.llama_model_load_from_file(changed.encode(), params)


def tokenize(vocabulary, text, document, special):
    data = text.encode()
    ids = (llama_cpp.llama_token * (2 * len(data) + 8))()  # a space more after each special token
    n = llama_cpp.llama_tokenize(vocabulary, data, len(data), ids, len(ids), document, special)
    assert n >= 0
    return list(ids[:n])


def pieces(vocabulary):
    value, buffer = 0xCBF29CE484222325, ctypes.create_string_buffer(4096)
    for token in range(llama_cpp.llama_vocab_n_tokens(vocabulary)):
        n = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, False)
        assert n >= 0
        for byte in buffer.raw[:n] + b"\n":
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", required=True)
    parser.add_argument("--out", default=os.path.join(HERE, "..", "tests", "golden", "tokens"))
    parser.add_argument("--fuzz", type=int, default=0, help="random texts instead of the committed ones")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    llama_cpp.llama_log_set(LOG, ctypes.c_void_p(0))
    corpus = fuzz(args.fuzz, args.seed) if args.fuzz else texts()
    assert all("\0" not in text for text in corpus)
    os.makedirs(args.out, exist_ok=True)

    def write(name, value):
        with open(os.path.join(args.out, name), "w") as file:
            file.write(value + "\n")

    write("texts.json", "[\n" + ",\n".join(json.dumps(text) for text in corpus) + "\n]")
    for name, model, changes in VOCABULARIES:
        loaded = open_vocabulary(os.path.join(args.models, model), changes)
        assert loaded, model
        vocabulary = llama_cpp.llama_model_get_vocab(loaded)
        rows = []
        for text in corpus:
            plain = tokenize(vocabulary, text, False, False)
            others = [tokenize(vocabulary, text, *flags) for flags in ((False, True), (True, False))]
            rows.append([plain] + [None if other == plain else other for other in others])
        head = {"model": model, "changes": changes, "tokens": llama_cpp.llama_vocab_n_tokens(vocabulary), "pieces": pieces(vocabulary)}
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        write(f"{name}.json", json.dumps(head)[:-1] + ', "ids": [\n' + rows + "\n]}")
        print(name, len(corpus), "texts")
        llama_cpp.llama_model_free(loaded)


LOG = llama_cpp.llama_log_callback(lambda level, text, data: None)

if __name__ == "__main__":
    main()
