import Supervision
import TestSupport
import Testing

/// The HTTP API on the built program: fields, codes, authentication, connections.
@Suite(.timeLimit(.minutes(5)))
struct APITests {
    private func startedNode() throws -> TestNode {
        let node = try TestNode(
            agent: "cat > /dev/null; echo TASK_COMPLETE", settings: #""worker": {"max_concurrent": 100}"#)
        try node.makeRepository("o/r")
        try node.start()
        return node
    }

    @Test func everyWrongFieldIsNamed() throws {
        let node = try startedNode()
        let long = String(repeating: "x", count: 10_001)
        let cases: [(body: String, field: String?, part: String)] = [
            ("", nil, "valid JSON"), ("{", nil, "valid JSON"), ("[]", nil, "JSON object"),
            ("\"x\"", nil, "JSON object"),
            (#"{"prompt": "x"}"#, "repo", "repo is missing"),
            (#"{"repo": null, "prompt": "x"}"#, "repo", "repo is missing"),
            (#"{"repo": "o/r"}"#, "prompt", "prompt is missing"),
            (#"{"repo": 5, "prompt": "x"}"#, "repo", "must be a string"),
            (#"{"repo": "o/r", "prompt": ["x"]}"#, "prompt", "must be a string"),
            (#"{"repo": "o/r", "prompt": ""}"#, "prompt", "must not be empty"),
            (#"{"repo": "o/r", "prompt": "\#(long)"}"#, "prompt", "at most 10000"),
            (#"{"repo": "o/r", "prompt": "a\u0000b"}"#, "prompt", "NUL"),
        ]
        for (body, field, part) in cases { try expectRefused(node, body, field, part) }
        for repo in ["a", "a/b/c", "a/..", "./b", "-a/b", "a/-b", "a b/c", "/b", "a/", "ä/b", "a/b\\n"] {
            try expectRefused(node, #"{"repo": "\#(repo)", "prompt": "x"}"#, "repo", "repo must")
        }
        for id in ["..", ".", "", "a/b", "a%2fb", "ä", String(repeating: "a", count: 129)] {
            try expectRefused(node, #"{"repo": "o/r", "prompt": "x", "task_id": "\#(id)"}"#, "task_id", "task_id must")
        }
        for branch in [
            "-x", "a..b", "x.lock", "@{", "a@{b", "a b", "/a", "a/", "a//b", ".a", "a/.b", "a.", "a~b", "a^", "a:b",
            "@", "HEAD", "",
        ] {
            try expectRefused(node, #"{"repo": "o/r", "prompt": "x", "branch": "\#(branch)"}"#, "branch", "branch ")
        }
        for model in ["-x", "", "a b", "a;b"] {
            try expectRefused(node, #"{"repo": "o/r", "prompt": "x", "model": "\#(model)"}"#, "model", "model must")
        }
        for restart in ["5", #"{"policy": "always"}"#, #"{"max_restarts": -1}"#] {
            try expectRefused(node, #"{"repo": "o/r", "prompt": "x", "restart": \#(restart)}"#, "restart", "restart")
        }
        #expect(try node.request("GET", "/workers").body == #"{"workers":[]}"#)
    }

    private func expectRefused(_ node: TestNode, _ body: String, _ field: String?, _ part: String) throws {
        let answer = try node.request("POST", "/dispatch", body: body)
        #expect(
            answer.status == 400 && answer.body.contains(part), "\(body.prefix(100)): \(answer.status) \(answer.body)")
        if let field { #expect(answer.body.contains(#""field":"\#(field)""#)) }
    }

    @Test func unknownAndRepeatedFieldsAndOtherTypesAreTaken() throws {
        let node = try startedNode()
        #expect(try node.dispatch("unknown", more: #""bogus": {"a": [1]}, "model": null"#).status == 202)
        #expect(try node.dispatch("twice", more: #""model": "a/b", "model": "a/b""#).status == 202)
        let answer = try node.request(
            "POST", "/dispatch", headers: ["Content-Type: text/plain"],
            body: #"{"repo":"o/r","prompt":"x","task_id":"plain"}"#)
        #expect(answer.status == 202)
        for id in ["unknown", "twice", "plain"] { _ = try node.followToEnd(id) }
    }

    @Test func sizesAndEncodingsAreChecked() throws {
        let node = try startedNode()
        let connection = try TestConnection(port: node.port)
        let large = [UInt8](repeating: UInt8(ascii: " "), count: (1 << 20) + 1)
        let answer = try connection.request("POST", "/dispatch", token: node.token, body: large)
        #expect(answer.status == 413 && answer.headers["connection"] == "close")
        let exact = Array(#"{"repo":"o/r","prompt":"x","task_id":"exact"}"#.utf8)
        let padded = exact + [UInt8](repeating: UInt8(ascii: " "), count: (1 << 20) - exact.count)
        #expect(
            try TestConnection(port: node.port).request("POST", "/dispatch", token: node.token, body: padded).status
                == 202)
        _ = try node.followToEnd("exact")
        let broken = Array(#"{"repo":"o/r","prompt":""#.utf8) + [0xff, 0xfe] + Array("\"}".utf8)
        let refused = try TestConnection(port: node.port).request("POST", "/dispatch", token: node.token, body: broken)
        #expect(refused.status == 400 && refused.body.contains("UTF-8"))
    }

    @Test func anActiveIdIsRefusedAndAnEndedOneRunsAgain() throws {
        let node = try TestNode(agent: "cat > /dev/null; echo ready; sleep 600")
        try node.makeRepository("o/r")
        try node.start()
        #expect(try node.dispatch("same").status == 202)
        let again = try node.dispatch("same")
        #expect(again.status == 409 && again.body.contains(#""task_id":"same""#))
        #expect(try node.awaitLog("same", "ready"))
        #expect(try node.request("DELETE", "/workers/same").status == 200)
        _ = try node.followToEnd("same")
        #expect(try TestEnvironment.eventually { try node.dispatch("same").status == 202 })
        #expect(try node.awaitLog("same", "ready"))
        #expect(try node.request("GET", "/workers").body.contains(#""task_id":"same""#))
    }

    @Test func repositoriesCanBeRestricted() throws {
        let node = try TestNode(agent: "true")
        try node.writeConfiguration(#"{"dispatch": {"auth_token": "\#(node.token)", "allowed_repos": ["O/Yes"]}}"#)
        try node.start()
        let answer = try node.dispatch("x", repo: "o/no")
        #expect(answer.status == 403 && answer.body.contains("o/no"))
    }

    @Test(arguments: [
        "", "Bearer", "Bearer ", "Basic 0123456789abcdef0123456789abcdef", "Bearer 0123456789abcdef0123456789abcde",
        "Bearer 0123456789abcdef0123456789abcdef0", "Bearer ü123456789abcdef0123456789abcdef",
        "0123456789abcdef0123456789abcdef",
    ])
    func onlyTheTokenOpens(field: String) throws {
        let node = try startedNode()
        let headers = field.isEmpty ? [] : ["Authorization: \(field)"]
        for (method, path) in [
            ("GET", "/workers"), ("POST", "/dispatch"), ("GET", "/workers/x"), ("DELETE", "/workers/x"),
            ("GET", "/workers/x/logs"),
        ] {
            let answer = try node.request(method, path, headers: headers, authenticated: false)
            #expect(answer.status == 401 && answer.headers["www-authenticate"] == "Bearer")
        }
        #expect(
            try node.request("GET", "/workers", headers: ["Authorization: bearer \(node.token)"], authenticated: false)
                .status == 200)
    }

    @Test func guessingIsThrottledAndNoTokenMeansNobody() throws {
        let node = try startedNode()
        var codes: [Int] = []
        for _ in 0..<12 {
            codes.append(
                try node.request("GET", "/workers", headers: ["Authorization: Bearer wrong"], authenticated: false)
                    .status)
        }
        #expect(codes.prefix(10).allSatisfy { $0 == 401 } && codes.last == 429)
        #expect(try node.request("GET", "/health", authenticated: false).status == 200)
        let closed = try TestNode(agent: "true")
        try closed.writeConfiguration(#"{"dispatch": {"auth_token": ""}}"#)
        try closed.start()
        #expect(
            try closed.request("GET", "/workers", headers: ["Authorization: Bearer "], authenticated: false).status
                == 401)
        #expect(try closed.request("GET", "/workers").body.contains("no token configured"))
    }

    @Test func pathsAndMethods() throws {
        let node = try startedNode()
        #expect(try node.request("GET", "/health", authenticated: false).body == #"{"status":"ok"}"#)
        let head = try node.request("HEAD", "/health", authenticated: false)
        #expect(head.status == 200 && head.headers["content-length"] == "15")
        #expect(try node.request("GET", "/", authenticated: false).headers["content-security-policy"] != nil)
        for path in ["/nothing", "/health/", "//health", "/workers/a/b/c", "/Health"] {
            #expect(try node.request("GET", path).status == 404, "\(path)")
        }
        for id in ["..", ".", "a%2Fb", "%2e%2e", "none", "a%20b"] {
            #expect(try node.request("GET", "/workers/\(id)").status == 404)
            #expect(try node.request("GET", "/workers/\(id)/logs").status == 404)
            #expect(try node.request("DELETE", "/workers/\(id)").status == 404)
        }
        let wrong = try node.request("PUT", "/workers/x")
        #expect(wrong.status == 405 && wrong.headers["allow"] == "GET, HEAD, DELETE, OPTIONS")
        #expect(try node.request("OPTIONS", "/dispatch").headers["allow"] == "POST, OPTIONS")
        #expect(try node.request("GET", "/dispatch").headers["allow"] == "POST, OPTIONS")
        #expect(try node.request("GET", "/workers/x/logs?lines=-1").status == 400)
    }

    @Test func connectionsAreKeptPipelinedAndClosed() throws {
        let node = try startedNode()
        let connection = try TestConnection(port: node.port)
        let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
        connection.send(String(repeating: request, count: 100))
        for _ in 0..<100 { #expect(try connection.readAnswer().status == 200) }
        connection.send("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        #expect(try connection.readAnswer().headers["connection"] == "close")
        #expect(connection.isClosedByServer())
        let old = try TestConnection(port: node.port)
        old.send("GET /health HTTP/1.0\r\n\r\n")
        #expect(try old.readAnswer().headers["connection"] == "close")
        #expect(old.isClosedByServer())
        let bad = try TestConnection(port: node.port)
        bad.send("BAD\r\n\r\n" + request)
        #expect(try bad.readAnswer().status == 400)
        #expect(bad.isClosedByServer())
        let half = try TestConnection(port: node.port)
        half.send(request)
        half.finishSending()
        #expect(try half.readAnswer().status == 200)
        let waiting = try TestConnection(port: node.port)
        waiting.send("POST /dispatch HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        #expect(try waiting.readHead().status == 100)
        waiting.send("{}")
        #expect(try waiting.readAnswer().status == 401)
    }

    @Test func whoDawdlesIsToldAndLetGo() throws {
        let node = try startedNode()
        let head = try TestConnection(port: node.port)
        head.send("GET /health HTTP/1.1\r\nHost: ")
        #expect(try head.readAnswer().status == 408)
        #expect(head.isClosedByServer())
        #expect(try node.request("GET", "/health").status == 200)
    }

    @Test func logsAreServedInEveryForm() throws {
        let node = try TestNode(agent: "cat > /dev/null; seq 1 1200; echo TASK_COMPLETE")
        try node.makeRepository("o/r")
        try node.start()
        _ = try node.dispatch("log")
        _ = try node.followToEnd("log")
        func lines(_ query: String) throws -> [Substring] {
            try node.request("GET", "/workers/log/logs\(query)").body.split(separator: "\n")
        }
        let newest = try lines("")
        #expect(newest.count == 500, "\(newest.first ?? "") to \(newest.last ?? "")")
        #expect(try lines("?lines=3").count == 3)
        #expect(try lines("?lines=3").last?.hasPrefix("[EXIT:0]") == true)
        #expect(try lines("?lines=0").isEmpty)
        let all = try lines("?lines=5000")
        #expect(all.filter { Int($0) != nil }.count == 1200)
        #expect(try node.request("GET", "/workers/log/logs?lines=x").body.contains(#""field":"lines""#))
        let events = try node.request(
            "GET", "/workers/log/logs", headers: ["Accept: text/event-stream", "Last-Event-ID: \(all.count - 2)"])
        #expect(events.headers["content-type"] == "text/event-stream" && events.headers["x-accel-buffering"] == "no")
        #expect(events.body.hasPrefix("id: \(all.count - 1)\n") && events.body.contains("event: end\ndata: {"))
    }
}
