import CSystem
import FoundationEssentials
import Glibc
import Supervision
import TestSupport
import Testing

/// What a hostile agent tries: each is refused or contained, the node answers throughout, and the next task runs as ever.
@Suite(.timeLimit(.minutes(5)))
struct SandboxTests {
    private static let landlock = Int(max(0, cs_landlock_version()))

    /// `try NAME COMMAND…` says whether a command got through.
    private static let attempts = """
        cat > /dev/null
        try() { name=$1; shift; if "$@" > /dev/null 2>&1; then echo "ESCAPED $name"; else echo "refused $name"; fi; }
        sees() { [ -n "$(cat "$1" 2> /dev/null)" ]; }

        """

    private func node(_ script: String, sandbox: String = "", worker: String = "") throws -> TestNode {
        let node = try TestNode(
            agent: Self.attempts + script,
            settings:
                #""worker": {"max_concurrent": 4, "ram_per_worker_mb": 1, "cancel_grace_seconds": 1\#(worker)}, "sandbox": {\#(sandbox)}"#
        )
        // No version manager's stand-ins, which need more of a home folder than agents see.
        node.environment["PATH"] = "/usr/local/bin:/usr/bin:/bin"
        try node.makeRepository("o/r")
        return node
    }

    /// Runs a task to its end; its log's lines.
    private func run(_ node: TestNode, _ id: String) throws -> [String] {
        #expect(try node.dispatch(id).status == 202)
        return try node.followToEnd(id)
    }

    private func expectContained(_ log: [String], _ count: Int, _ place: SourceLocation = #_sourceLocation) {
        #expect(log.filter { $0.hasPrefix("ESCAPED") } == [], sourceLocation: place)
        #expect(log.count { $0.hasPrefix("refused") } == count, "\(log)", sourceLocation: place)
    }

    private func skips(below version: Int, _ what: String) -> Bool {
        if Self.landlock < version {
            print("skipped: \(what) needs Landlock \(version), this kernel has \(Self.landlock)")
        }
        return Self.landlock < version
    }

    // MARK: Files

    @Test func filesOfTheNodeAndOfOtherTasksAreClosed() throws {
        if skips(below: 3, "the confinement of files") { return }
        let node = try node(
            """
            [ "$AIDEVOPS_TASK_ID" = first ] && { echo secret > kept; echo TASK_COMPLETE; exit; }
            data=$(cd ../../../.. && pwd)
            try read-configuration sees $data/config/worker.json
            try write-configuration sh -c "echo >> $data/config/worker.json"
            try truncate-configuration truncate -s 0 $data/config/worker.json
            try replace-configuration mv -f README.md $data/config/worker.json
            try list-data ls $data
            try read-record sees $data/tasks/first.json
            try remove-record rm $data/tasks/first.json
            try read-log sees $data/logs/first.log
            try read-other-task sees $data/workspace/tasks/first/worktree/kept
            try write-other-task touch $data/workspace/tasks/first/worktree/planted
            try read-key sees $data/.ssh/id_ed25519
            try hard-link ln $data/config/worker.json stolen
            ln -s $data/config/worker.json link; try symbolic-link sees link
            try write-system touch /usr/aidevops-was-here
            try write-etc sh -c 'echo >> /etc/hosts'
            try make-device mknod disk b 8 0
            try move-out mv README.md $data/README.md
            touch ok && mkdir -p deep/er && mv ok deep/er/ && cp deep/er/ok "$HOME/ok" && mv "$HOME/ok" "$TMPDIR/ok" && echo own-files-work
            git log -1 --format=tformat:git-works
            ls /usr > /dev/null && ls /etc > /dev/null && echo x > /dev/null && head -c 1 /dev/urandom > /dev/null && echo system-works
            echo TASK_COMPLETE
            """)
        try Files.makeFolders(node.data + "/.ssh")
        try node.folder.write("data/.ssh/id_ed25519", "PRIVATE")
        try node.start()
        _ = try run(node, "first")
        let log = try run(node, "second")
        expectContained(log, 17)
        for word in ["own-files-work", "git-works", "system-works"] { #expect(log.contains(word), "\(log)") }
        #expect(try node.state("second") == "succeeded")
    }

    @Test func theSharedCacheCanNotBePoisoned() throws {
        if skips(below: 3, "the confinement of files") { return }
        let node = try node(
            """
            [ "$AIDEVOPS_TASK_ID" = clean ] && { git fsck --full && cat README.md; ls; echo TASK_COMPLETE; exit; }
            objects=$(cat .git/objects/info/alternates)
            try write-object sh -c "echo x > $objects/planted"
            try remove-object rm -rf $objects/pack
            try write-settings git --git-dir $objects/.. config core.fsmonitor /bin/true
            try write-hook sh -c "echo x > $objects/../hooks-planted"
            try move-branch git --git-dir $objects/.. update-ref refs/heads/main HEAD~0
            try take-lock sh -c "echo > $objects/../../planted.lock"
            echo TASK_COMPLETE
            """)
        try node.start()
        let log = try run(node, "poisoner")
        expectContained(log, 6)
        let clean = try run(node, "clean")
        #expect(clean.contains("# Seed") && clean.contains("README.md"), "\(clean)")
    }

    /// What an agent leaves in its worktree's settings runs only where the agent could run it itself.
    @Test func settingsAndAttributesOfARepositoryRunNothingOutside() throws {
        if skips(below: 3, "the confinement of files") { return }
        let node = try node(
            """
            if [ "$AIDEVOPS_TASK_ID" = planter ]; then
              outside=$(cd ../../../../.. && pwd)
              for place in $outside "$HOME"; do
                printf '#!/bin/sh\\ntouch %s/pwned-$1\\ncat\\n' $place >> "$HOME/evil"
              done
              chmod +x "$HOME/evil"
              git config core.fsmonitor "$HOME/evil fsmonitor"
              git config filter.evil.clean "$HOME/evil clean"
              git config filter.evil.smudge "$HOME/evil smudge"
              git config core.sshCommand "$HOME/evil ssh"
              git config alias.status "!$HOME/evil alias"
              mkdir -p "$HOME/hooks"; cp "$HOME/evil" "$HOME/hooks/post-checkout"; git config core.hooksPath "$HOME/hooks"
              echo '* filter=evil' > .gitattributes
              echo changed >> README.md
            fi
            echo TASK_COMPLETE
            """)
        try node.start()
        _ = try run(node, "planter")
        #expect(try node.dispatch("heir", more: #""continue_task": "planter""#).status == 202)
        _ = try node.followToEnd("heir")
        #expect(try node.state("heir") == "succeeded")
        let outside = try Files.names(in: node.folder.path)
        #expect(!outside.contains { $0.hasPrefix("pwned") }, "\(outside)")
        #expect(try node.worker("planter").contains(#""uncommitted_changes":true"#))
    }

    /// Of the task's folder an agent sees the file with its prompt, too.
    @Test func aPromptInAFileCanBeRead() throws {
        let node = try TestNode(agent: "cat \"$1\"; echo; echo TASK_COMPLETE")
        let script = node.folder.path + "/agent.sh"
        try node.writeConfiguration(
            """
            {"dispatch": {"auth_token": "\(node.token)"}, "git": {"base_url": "file://\(node.folder.path)/remote"},
             "agent": {"preset": "custom", "command": ["/bin/sh", "\(script)", "{prompt_file}"]}}
            """)
        try node.makeRepository("o/r")
        try node.start()
        #expect(try run(node, "reader").contains("Do it."))
        #expect(try node.dispatch("again", more: #""continue_task": "reader""#).status == 202)
        #expect(try node.followToEnd("again").contains("Do it."))
    }

    // MARK: Processes

    @Test func theNodeCanNotBeReadSignalledOrTraced() throws {
        if skips(below: 6, "the scope of signals") { return }
        let node = try node(
            """
            init=$PPID; while [ "$(cat /proc/$init/comm)" = sh ]; do init=$(awk '{print $4}' /proc/$init/stat); done
            node=$(awk '{print $4}' /proc/$init/stat)
            try stop-node kill -STOP $node
            try kill-node kill -9 $node
            try kill-init kill -9 $init
            try probe-node kill -0 $node
            try node-environment sees /proc/$node/environ
            try node-memory head -c 1 /proc/$node/mem
            try node-descriptors readlink /proc/$node/fd/0
            try init-environment sees /proc/$init/environ
            try node-root ls /proc/$node/root/
            try node-folder ls /proc/$node/cwd/
            sleep 600 & try() { :; }; kill $! && echo own-signals-work
            echo TASK_COMPLETE
            """)
        node.environment["GH_TOKEN"] = "ghp_abcdefghijklmnop"
        try node.start()
        let log = try run(node, "intruder")
        expectContained(log, 10)
        #expect(log.contains("own-signals-work"))
        #expect(try node.request("GET", "/health").status == 200)
    }

    @Test func privilegesCanNotBeGained() throws {
        let node = try node(
            "grep -E '^(NoNewPrivs|CapEff|CapBnd):' /proc/self/status; ulimit -c; ulimit -n; cat /proc/self/oom_score_adj; nice; echo TASK_COMPLETE",
            sandbox: #""max_open_files": 512"#)
        try node.start()
        let log = try run(node, "meek")
        for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000"] { #expect(log.contains(line), "\(log)") }
        // Who has no capabilities can't narrow what could be gained, and with no_new_privs gains none.
        if geteuid() == 0 { #expect(log.contains("CapBnd:\t0000000000000000"), "\(log)") }
        for line in ["0", "512", "500", "10"] { #expect(log.contains(line), "\(log)") }
    }

    // MARK: The network

    @Test func portsAreLimitedWhereTheConfigurationSaysSo() throws {
        if skips(below: 4, "the confinement of ports") { return }
        let node = try node(
            """
            listen() { python3 -c 'import socket,sys; s=socket.socket(); s.setsockopt(1,2,1); s.bind(("127.0.0.1",int(sys.argv[1]))); s.listen()' $1; }
            connect() { python3 -c 'import socket,sys; socket.create_connection(("127.0.0.1",int(sys.argv[1])),5)' $1; }
            try listen-elsewhere listen 0
            try connect-elsewhere connect $NODE_PORT
            echo TASK_COMPLETE
            """, sandbox: #""tcp_bind_ports": [34567], "tcp_connect_ports": [443]"#)
        try node.start()
        try node.folder.write(
            "agent.sh", try node.folder.read("agent.sh").replacing("$NODE_PORT", with: "\(node.port)"))
        expectContained(try run(node, "caller"), 2)
    }

    // MARK: Secrets

    /// Git's own reading of what the order says about credentials.
    @Test func theTokenGoesToTheConfiguredHostAlone() throws {
        let folder = try TemporaryFolder()
        var settings = NodeSettings()
        settings.gitBaseURL = "https://git.example.com"
        let spec = TaskSpec(id: "t", repo: "o/r", prompt: "p", model: "m", branch: nil)
        let record = TaskRecord(spec: spec, state: .queued, reason: "", createdAt: .now)
        let order = WorkOrder(
            for: record, mode: .fresh,
            in: WorkerSurroundings(
                paths: NodePaths(data: folder.path), settings: settings,
                environment: ["PATH": TestEnvironment.variables["PATH"] ?? "", "GH_TOKEN": "ghp_token"]))
        #expect(!order.gitConfiguration.contains("ghp_token"))
        try folder.write("gitconfig", order.gitConfiguration)
        func answer(host: String, scheme: String = "https") throws -> String {
            var environment = order.environment
            environment["GIT_CONFIG_GLOBAL"] = folder.path + "/gitconfig"
            environment["GIT_CONFIG_SYSTEM"] = "/dev/null"
            let command = try #require(Command(program: "git", ["credential", "fill"], environment: environment))
            return try command.run(input: Array("protocol=\(scheme)\nhost=\(host)\n\n".utf8)).outputText
        }
        #expect(try answer(host: "git.example.com").contains("password=ghp_token"))
        for host in ["example.com", "git.example.com.evil.org", "evil.org", "git.example.com:8443"] {
            #expect(!(try answer(host: host).contains("ghp_token")), "\(host)")
        }
        #expect(!(try answer(host: "git.example.com", scheme: "http").contains("ghp_token")))
    }

    @Test func whatIsStoredIsPrivate() throws {
        let node = try node("umask; echo TASK_COMPLETE")
        try node.start()
        let log = try run(node, "private")
        #expect(log.contains("0077"))
        for path in ["", "/config", "/tasks", "/logs", "/workspace", "/workspace/tasks/private"] {
            var info = stat()
            #expect(stat(node.data + path, &info) == 0 && info.st_mode & 0o777 == 0o700, "\(path)")
        }
        for path in ["/logs/private.log", "/tasks/private.json"] {
            var info = stat()
            #expect(stat(node.data + path, &info) == 0 && info.st_mode & 0o777 == 0o600, "\(path)")
        }
    }

    // MARK: Greed

    static let greedy: [(name: String, script: String, sandbox: String, reason: String)] = [
        (
            "processes", "bomb() { sleep 60 & bomb2; }; bomb2() { sleep 60 & bomb; }; i=0; while :; do sleep 60 & done",
            #""max_processes": 100"#, "took more processes than it may"
        ),
        (
            "fork-bomb", "cat > bomb.sh <<'X'\nsh bomb.sh & sh bomb.sh & wait\nX\nsh bomb.sh", #""max_processes": 200"#,
            "took more processes than it may"
        ),
        (
            "memory", "exec python3 -c 'x=[]\nwhile True: x.append(bytearray(b\"x\"*(1<<20)))'",
            #""max_memory_mb": 300"#, "took more memory than it may"
        ),
        (
            "disk", "i=0; while :; do i=$((i+1)); head -c 1000000 /dev/zero > f$i; done", #""max_disk_mb": 64"#,
            "took more disk than it may"
        ),
        (
            "deep-disk",
            "python3 -c 'import os\nfor i in range(3000): os.mkdir(\"d\"); os.chdir(\"d\")\nopen(\"f\",\"wb\").write(b\"x\"*(70<<20))'; sleep 600",
            #""max_disk_mb": 64, "max_file_mb": 1000"#, "took more disk than it may"
        ),
    ]

    @Test(arguments: greedy.map(\.name))
    func aGreedyAgentIsEndedAndTheNodeAnswersThroughout(name: String) throws {
        let greedy = try #require(Self.greedy.first { $0.name == name })
        let node = try node(
            "[ $AIDEVOPS_TASK_ID = next ] && { echo TASK_COMPLETE; exit; }\n" + greedy.script, sandbox: greedy.sandbox)
        try node.start()
        #expect(try node.dispatch("greedy").status == 202)
        var slowest = Int64(0)
        let hasEnded = try TestEnvironment.eventually(within: .seconds(120)) {
            let began = cs_monotonic_ns()
            #expect(try node.request("GET", "/health").status == 200)
            slowest = max(slowest, cs_monotonic_ns() - began)
            return try node.state("greedy") == "failed"
        }
        print("greedy agent (\(name)): the slowest /health took \(slowest / 1_000_000) ms")
        #expect(hasEnded)
        let worker = try node.worker("greedy")
        #expect(worker.contains(greedy.reason) && worker.contains(#""outcome":"over_quota""#), "\(worker)")
        #expect(node.processes() == [])
        _ = try run(node, "next")
        #expect(try node.state("next") == "succeeded")
    }

    @Test func whatAnAgentExhaustsIsItsOwn() throws {
        let node = try node(
            """
            case $AIDEVOPS_TASK_ID in
            files) try open-many python3 -c 'x=[open("/dev/null") for _ in range(100000)]';;
            big-file) try write-big head -c 30000000 /dev/zero | cat > big; [ $(stat -c %s big) -le 10485760 ] && echo refused big-file;;
            flood) head -c 100000000 /dev/zero | tr '\\0' x; echo; echo refused flood;;
            esac
            echo TASK_COMPLETE
            """, sandbox: #""max_open_files": 256, "max_file_mb": 10"#)
        try node.start()
        expectContained(try run(node, "files"), 1)
        #expect(try run(node, "big-file").contains("refused big-file"))
        #expect(try node.dispatch("flood").status == 202)
        var slowest = Int64(0)
        let hasEnded = try TestEnvironment.eventually(within: .seconds(120)) {
            let began = cs_monotonic_ns()
            #expect(try node.request("GET", "/health").status == 200)
            slowest = max(slowest, cs_monotonic_ns() - began)
            return try node.state("flood") == "succeeded"
        }
        print("100 MB without a newline: the slowest /health took \(slowest / 1_000_000) ms")
        #expect(hasEnded)
    }

    // MARK: Modes

    @Test func whatIsOffIsTold() throws {
        let node = try node("cat ../../../../config/worker.json; echo TASK_COMPLETE", sandbox: #""mode": "off""#)
        try node.start()
        #expect(try run(node, "free").contains { $0.contains("allowed to be read") || $0.contains("auth_token") })
        let status = try node.request("GET", "/status").body
        #expect(status.contains(#""mode":"off""#) && status.contains("the sandbox is off"))
        #expect(node.printed.contains { $0.contains("The sandbox lacks something.") })
    }

    @Test func pathsAreAddedByTheConfiguration() throws {
        if skips(below: 3, "the confinement of files") { return }
        let shared = try TemporaryFolder()
        try Files.makeFolders(shared.path + "/in")
        try Files.makeFolders(shared.path + "/out")
        try shared.write("in/tool", "#!/bin/sh\necho the tool ran\n")
        chmod(shared.path + "/in/tool", 0o755)
        let node = try node(
            """
            \(shared.path)/in/tool; echo result > \(shared.path)/out/result
            try write-readable touch \(shared.path)/in/x
            echo TASK_COMPLETE
            """, sandbox: #""read_paths": ["\#(shared.path)/in"], "write_paths": ["\#(shared.path)/out"]"#)
        try node.start()
        let log = try run(node, "shares")
        expectContained(log, 1)
        #expect(log.contains("the tool ran"))
        #expect(try shared.read("out/result") == "result\n")
    }

    /// A wide path that holds the data folder doesn't open it.
    @Test func thePathToTheDataFolderStaysClosed() throws {
        if skips(below: 3, "the confinement of files") { return }
        let node = try node("")
        try node.folder.write("beside", "beside\n")
        let script = """
            try read-configuration sees \(node.data)/config/worker.json
            cat \(node.folder.path)/beside
            echo TASK_COMPLETE
            """
        try node.writeConfiguration(
            agent: Self.attempts + script, settings: #""sandbox": {"read_paths": ["/"], "write_paths": ["/tmp"]}"#)
        try node.start()
        let log = try run(node, "wide")
        expectContained(log, 1)
        #expect(log.contains("beside"), "\(log)")
    }

    // MARK: Control groups

    @Test func aWorkerIsInAControlGroupOfItsOwn() throws {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        let root = mounts.first { cs_is_cgroup2($0) == 1 }.map { $0 + "/aidevops-test-\(getpid())" }
        guard let root, mkdir(root, 0o755) == 0 else {
            return print("skipped: control groups need cgroup version 2 and the right to make one")
        }
        defer { rmdir(root) }
        let node = try node(
            "cat /proc/self/cgroup; setsid sleep 600 & echo ready; wait", sandbox: #""control_group": "\#(root)""#)
        try node.start()
        #expect(try node.request("GET", "/status").body.contains("control_groups"))
        #expect(try node.dispatch("grouped").status == 202)
        #expect(try node.awaitLog("grouped", "ready"))
        #expect(try Files.names(in: root).contains("worker-grouped"))
        #expect(try node.request("DELETE", "/workers/grouped").status == 200)
        let log = try node.followToEnd("grouped")
        #expect(log.contains { $0.hasPrefix("0::") && $0.hasSuffix("/worker-grouped") }, "\(log)")
        #expect(try !Files.names(in: root).contains("worker-grouped"))
        node.stop()
    }
}

/// Git over SSH, to a real sshd on loopback.
@Suite(.timeLimit(.minutes(5)))
struct SSHTests {
    /// An sshd that knows one key, for as long as this lives.
    private final class Server {
        let port: UInt16
        private let pid: Int32

        init?(key: String, in folder: TemporaryFolder) throws {
            guard let program = Files.findProgram("sshd", path: "/usr/sbin:/usr/local/sbin:/usr/bin") else {
                return nil
            }
            var free: UInt16 = 0
            close(cs_listen("127.0.0.1", 0, 1, &free))
            port = free
            try TestEnvironment.run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", folder.path + "/host"])
            try folder.write("authorized", key + "\n")
            try folder.write(
                "sshd_config",
                """
                Port \(port)
                ListenAddress 127.0.0.1
                HostKey \(folder.path)/host
                AuthorizedKeysFile \(folder.path)/authorized
                StrictModes no
                UsePAM no
                PasswordAuthentication no
                PermitRootLogin yes
                PidFile none

                """)
            if geteuid() == 0 { try Files.makeFolders("/run/sshd") }
            let null = open("/dev/null", O_RDWR | O_CLOEXEC)
            defer { close(null) }
            pid = try Command(
                path: program, arguments: [program, "-D", "-f", folder.path + "/sshd_config"],
                environment: TestEnvironment.variables
            ).spawn(descriptors: [null, null, null])
            let port = port
            guard TestEnvironment.eventually(within: .seconds(20), { (try? TestConnection(port: port)) != nil }) else {
                return nil
            }
        }

        deinit {
            _ = cs_kill(pid, SIGTERM)
            var status: Int32 = 0
            while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
        }
    }

    @Test(arguments: ["copy", "agent"])
    func aWorkerPushesWithTheNodesKey(mode: String) throws {
        let node = try TestNode(agent: "")
        try node.makeRepository("o/r")
        // The first start makes the key and pins GitHub's host.
        try node.start()
        node.stop()
        guard let key = try? node.folder.read("data/.ssh/id_ed25519.pub") else {
            return print("skipped: ssh-keygen isn't on this machine")
        }
        #expect(try node.folder.read("data/.ssh/known_hosts").hasPrefix("github.com ssh-ed25519 AAAAC3Nza"))
        guard let server = try Server(key: key, in: node.folder) else {
            return print("skipped: sshd isn't on this machine, or didn't start")
        }
        let host = try node.folder.read("host.pub").split(separator: " ").prefix(2).joined(separator: " ")
        let pinned = try node.folder.read("data/.ssh/known_hosts")
        try node.folder.write("data/.ssh/known_hosts", pinned + "[127.0.0.1]:\(server.port) \(host)\n")
        try node.folder.write(
            "agent.sh",
            """
            cat > /dev/null
            ls "$HOME/.ssh"
            cat \(node.data)/.ssh/id_ed25519 && echo ESCAPED
            echo work > work; git add work; git commit -qm Work && git push -q origin HEAD && echo TASK_COMPLETE
            """)
        let user = try TestEnvironment.run("id", ["-un"])
        try node.writeConfiguration(
            """
            {"dispatch": {"auth_token": "\(node.token)"}, "worker": {"restart": {"policy": "never"}},
             "git": {"base_url": "ssh://\(user)@127.0.0.1:\(server.port)\(node.folder.path)/remote", "ssh_key": "\(mode)"},
             "agent": {"preset": "custom", "command": ["/bin/sh", "\(node.folder.path)/agent.sh"]}}
            """)
        try node.start()
        #expect(try node.dispatch("push").status == 202)
        let log = try node.followToEnd("push")
        #expect(try node.state("push") == "succeeded", "\(log)")
        #expect(try TestEnvironment.run("git", ["log", "-1", "--format=%s"], in: node.repository("o/r")) == "Work")
        #expect(log.contains("id_ed25519") == (mode == "copy"), "\(log)")
        if cs_landlock_version() > 0 { #expect(!log.contains("ESCAPED")) }
        #expect(node.processes() == [])
    }

    @Test func whatIsPlantedInThePlaceOfTheKeyIsReplaced() throws {
        let node = try TestNode(agent: "")
        try node.folder.write("victim", "untouched")
        try Files.makeFolders(node.folder.path + "/elsewhere")
        try TestEnvironment.run("ln", ["-s", node.folder.path + "/elsewhere", node.data + "/.ssh"])
        try node.start()
        #expect(!Files.isSymbolicLink(node.data + "/.ssh"))
        #expect(try Files.names(in: node.folder.path + "/elsewhere") == [])
        node.stop()
        for name in ["known_hosts", "id_ed25519"] {
            try Files.remove(node.data + "/.ssh/" + name)
            try TestEnvironment.run("ln", ["-s", node.folder.path + "/victim", node.data + "/.ssh/" + name])
        }
        try node.start()
        #expect(try node.folder.read("victim") == "untouched")
        #expect(try node.folder.read("data/.ssh/known_hosts").hasPrefix("github.com "))
    }
}
