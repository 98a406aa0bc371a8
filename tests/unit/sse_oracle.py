"""What the standards say, word by word and slowly: an oracle for the SSE decoder.

``utf8_decode`` transcribes the Encoding standard, sections 6 ("UTF-8 decode") and 8.1.1 ("UTF-8
decoder"); ``interpret`` the HTML standard, section 9.2.6 "Interpreting an event stream", on the
whole text at once, character by character. Nothing here is shared with the package.
"""


def utf8_decode(data):  # noqa: PLR0912 - the standard has that many branches
    """Strip one byte order mark, then decode with replacement."""
    if data[:3] == b"\xef\xbb\xbf":
        data = data[3:]
    out = []
    code_point = seen = needed = 0
    lower, upper = 0x80, 0xBF
    position = 0
    while position < len(data):
        byte = data[position]
        if needed == 0:
            if byte <= 0x7F:
                out.append(chr(byte))
            elif 0xC2 <= byte <= 0xDF:
                needed, code_point = 1, byte & 0x1F
            elif 0xE0 <= byte <= 0xEF:
                if byte == 0xE0:
                    lower = 0xA0
                if byte == 0xED:
                    upper = 0x9F
                needed, code_point = 2, byte & 0xF
            elif 0xF0 <= byte <= 0xF4:
                if byte == 0xF0:
                    lower = 0x90
                if byte == 0xF4:
                    upper = 0x8F
                needed, code_point = 3, byte & 0x7
            else:
                out.append("\ufffd")
        elif not lower <= byte <= upper:
            code_point = needed = seen = 0
            lower, upper = 0x80, 0xBF
            out.append("\ufffd")
            continue  # "restore byte to ioQueue"
        else:
            lower, upper = 0x80, 0xBF
            code_point = (code_point << 6) | (byte & 0x3F)
            seen += 1
            if seen == needed:
                out.append(chr(code_point))
                code_point = needed = seen = 0
        position += 1
    if needed:
        out.append("\ufffd")
    return "".join(out)


class _Interpreter:
    def __init__(self):
        self.events = []
        self.data = ""
        self.event_type = ""
        self.last_event_id_buffer = None  # the standard's empty string, before any id
        self.retry = None  # not of the standard: the reconnection time that this block set

    def line(self, line):
        if line == "":
            self.dispatch()
        elif line[0] == ":":
            pass
        elif ":" in line:
            at = line.index(":")
            field, value = line[:at], line[at + 1 :]
            if value != "" and value[0] == " ":
                value = value[1:]
            self.field(field, value)
        else:
            self.field(line, "")

    def field(self, field, value):
        if field == "event":
            self.event_type = value
        elif field == "data":
            self.data = self.data + value
            self.data = self.data + "\n"
        elif field == "id":
            if "\0" not in value:
                self.last_event_id_buffer = value
        elif field == "retry":  # noqa: SIM102 - as the standard has it
            if value != "" and all(c in "0123456789" for c in value):
                self.retry = int(value.lstrip("0") or "0", 10)  # int() takes 4,300 digits

    def dispatch(self):
        last_event_id = self.last_event_id_buffer
        if self.data == "":
            self.event_type = ""
            self.retry = None
            return
        if self.data[-1] == "\n":
            self.data = self.data[:-1]
        kind = "message" if self.event_type == "" else self.event_type
        self.events.append((kind, self.data, last_event_id, self.retry))
        self.data = self.event_type = ""
        self.retry = None


def interpret(data):
    """Return the (event, data, id, retry) of every event in a whole body."""
    text = utf8_decode(data)
    reader = _Interpreter()
    line = []
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\r":
            if position < len(text) and text[position] == "\n":
                position += 1
        elif character != "\n":
            line.append(character)
            continue
        reader.line("".join(line))
        line = []
    # "Once the end of the file is reached, any pending data must be discarded."
    return reader.events
