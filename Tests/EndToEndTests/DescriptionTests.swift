import Supervision
import TestSupport
import Testing

@testable import Server

/// The served answers against the served OpenAPI description, and the streams of events and metrics.
@Suite(.timeLimit(.minutes(5)))
struct DescriptionTests {
    @Test func everyRouteIsDescribedAndNothingElse() throws {
        let node = try TestNode(agent: "true")
        try node.start()
        let document = try TestJSON(try node.request("GET", "/openapi.json", authenticated: false).body)
        var described: Set<String> = []
        for path in document["paths"]?.keys ?? [] {
            for method in document["paths"]?[path]?.keys ?? [] { described.insert("\(method.uppercased()) \(path)") }
        }
        let routes = Route.all.map { "\($0.method) /\($0.path.joined(separator: "/").replacing(":id", with: "{id}"))" }
        #expect(described == Set(routes))
    }

    @Test func theAnswersAreAsDescribed() throws {
        let node = try TestNode(
            agent:
                "cat > /dev/null; echo ready; [ $AIDEVOPS_TASK_ID = active ] && sleep 600; echo x > new; echo TASK_COMPLETE"
        )
        try node.makeRepository("o/r")
        try node.start()
        let document = try TestJSON(try node.request("GET", "/openapi.json").body)
        let schema = TestSchema(document: document)
        func check(
            _ method: String, _ path: String, as template: String? = nil, body: String? = nil,
            authenticated: Bool = true, _ status: Int
        ) throws {
            let answer = try node.request(method, path, body: body, authenticated: authenticated)
            #expect(answer.status == status, "\(method) \(path): \(answer)")
            let responses = document["paths"]?[template ?? path]?[method.lowercased()]?["responses"]
            let described = try #require(
                responses?[String(status)]?["content"]?["application/json"]?["schema"], "\(method) \(path) \(status)")
            #expect(schema.problems(try TestJSON(answer.body), described) == [], "\(method) \(path) \(status)")
        }
        let dispatch = #"{"repo": "o/r", "prompt": "x", "task_id": "ID", "restart": {"policy": "never"}}"#
        try check("POST", "/dispatch", body: dispatch.replacing("ID", with: "done"), 202)
        _ = try node.followToEnd("done")
        try check("POST", "/dispatch", body: dispatch.replacing("ID", with: "active"), 202)
        #expect(try node.awaitLog("active", "ready"))
        try check("POST", "/dispatch", body: dispatch.replacing("ID", with: "active"), 409)
        try check("POST", "/dispatch", body: "{}", 400)
        try check("POST", "/dispatch", body: "{}", authenticated: false, 401)
        try check("GET", "/health", 200)
        try check("GET", "/status", 200)
        try check("GET", "/workers", 200)
        for id in ["active", "done"] { try check("GET", "/workers/\(id)", as: "/workers/{id}", 200) }
        try check("GET", "/workers/none", as: "/workers/{id}", 404)
        try check("GET", "/workers/none/logs", as: "/workers/{id}/logs", 404)
        try check("GET", "/workers/active/changes", as: "/workers/{id}/changes", 200)
        try check("GET", "/workers/none/changes", as: "/workers/{id}/changes", 404)
        try check("GET", "/tasks", 200)
        try check("DELETE", "/workers/active", as: "/workers/{id}", 200)
        try check("DELETE", "/workers/none", as: "/workers/{id}", 404)
    }

    @Test func everyChangeOfStateIsToldToFollowers() throws {
        let node = try TestNode(agent: "cat > /dev/null; echo TASK_COMPLETE")
        try node.makeRepository("o/r")
        try node.start()
        let connection = try TestConnection(port: node.port)
        connection.send("GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \(node.token)\r\n\r\n")
        #expect(try connection.readHead().headers["content-type"] == "text/event-stream")
        while let line = connection.readLine(), !line.hasPrefix(":") {}
        _ = try node.dispatch("seen")
        var states: [String] = []
        var lastID = ""
        while let line = connection.readLine() {
            if line.hasPrefix("id: ") { lastID = String(line.dropFirst(4)) }
            guard line.hasPrefix("data: "), let start = line.range(of: #""state":""#) else { continue }
            states.append(String(line[start...].prefix { $0 != "\"" }))
            if states.last == "succeeded" { break }
        }
        #expect(states == ["preparing", "running", "succeeded"])
        // Who comes back behind the first gets the rest.
        let again = try TestConnection(port: node.port)
        let first = try #require(UInt64(lastID)) - 2
        again.send(
            "GET /events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: \(first)\r\nAuthorization: Bearer \(node.token)\r\n\r\n")
        while let line = again.readLine(), line != "id: \(first + 1)" {}
        #expect(again.readLine() == "event: state")
    }

    @Test func metricsAreWellFormedAndCount() throws {
        let node = try TestNode(
            agent: "cat > /dev/null; case $AIDEVOPS_TASK_ID in bad) exit 3;; esac; echo TASK_COMPLETE")
        try node.makeRepository("o/r")
        try node.start()
        for id in ["good", "bad"] {
            _ = try node.dispatch(id)
            _ = try node.followToEnd(id)
        }
        let text = try node.request("GET", "/metrics").body
        for line in [
            #"aidevops_tasks_ended_total{state="succeeded"} 1"#, #"aidevops_tasks_ended_total{state="failed"} 1"#,
            #"aidevops_dispatches_total{result="accepted"} 2"#, "aidevops_slots 2",
            "aidevops_task_duration_seconds_count 2",
            #"aidevops_http_requests_total{route="POST /dispatch",code="202"} 2"#,
        ] { #expect(text.split(separator: "\n").contains { $0 == line }, "\(line)") }
        var types: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            if line.hasPrefix("# TYPE ") {
                let words = line.split(separator: " ")
                #expect(types.updateValue(words[3], forKey: words[2]) == nil, "\(line)")
            } else if !line.hasPrefix("#") {
                let name = line.prefix { $0 != "{" && $0 != " " }
                let family = types[name] != nil ? name : name.prefix(upTo: name.lastIndex(of: "_") ?? name.endIndex)
                #expect(types[family] != nil && Double(line.split(separator: " ").last ?? "") != nil, "\(line)")
            }
        }
    }

    @Test func manyFollowersOfOneLogAllGetItsEnd() throws {
        let node = try TestNode(
            agent:
                "cat > /dev/null; echo ready; while [ ! -e \"$HOME/../go\" ]; do sleep 0.02; done; seq 1 100; echo TASK_COMPLETE"
        )
        try node.makeRepository("o/r")
        try node.start()
        _ = try node.dispatch("watched")
        #expect(try node.awaitLog("watched", "ready"))
        let request =
            "GET /workers/watched/logs?follow=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \(node.token)\r\n\r\n"
        let followers = try (0..<1000).map { _ in try TestConnection(port: node.port) }
        for follower in followers { follower.send(request) }
        for follower in followers { #expect(try follower.readHead().status == 200) }
        #expect(try node.request("GET", "/health").status == 200)
        try node.folder.write("data/workspace/tasks/watched/go", "")
        for follower in followers {
            var last: [UInt8] = []
            while let chunk = follower.readChunk(), !chunk.isEmpty { last = chunk }
            #expect(String(decoding: last.suffix(60), as: UTF8.self).contains("[EXIT:0]"))
        }
    }
}
