import com.mpush.api.Client;
import com.mpush.api.ClientListener;
import com.mpush.api.http.HttpCallback;
import com.mpush.api.http.HttpRequest;
import com.mpush.api.http.HttpResponse;
import com.mpush.api.push.AckModel;
import com.mpush.api.push.PushCallback;
import com.mpush.api.push.PushContext;
import com.mpush.client.ClientConfig;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/**
 * One device with the original's Java client.
 *
 * Properties: device.host, device.port, device.key (Base64), device.id, device.os,
 * device.version, device.user (bound after each handshake), device.storage (a directory
 * for the reusable session; without it there is none), device.delay (ms that it takes to
 * acknowledge by itself), device.heartbeat (ms).
 *
 * Orders: start, stop, bind user, unbind, ack id, health, push text [ack], http method
 * url timeout [header text] [body text].
 *
 * Events: "ready" before anything; "connected", "disconnected"; "handshake" (of either
 * kind) with the heartbeat in ms; "push" with text and id (0 if the app need not ack);
 * "kick" with device and user; "health" with ok; "answered" or "unanswered" for an own
 * push; "http" with url, status, reason, body and the header X-Web; "error" for an order
 * that failed.
 */
public final class DeviceDriver implements ClientListener {
    private final Steering steering = new Steering();
    private Client client;

    public static void main(String[] args) throws Exception {
        new DeviceDriver().run();
    }

    private void run() throws Exception {
        ClientConfig config = ClientConfig.build()
                .setAllotServer(System.getProperty("device.alloc"))
                .setServerHost(System.getProperty("device.host"))
                .setServerPort(Integer.getInteger("device.port"))
                .setPublicKey(System.getProperty("device.key"))
                .setDeviceId(System.getProperty("device.id"))
                .setOsName(System.getProperty("device.os"))
                .setOsVersion("13")
                .setClientVersion(System.getProperty("device.version"))
                .setMinHeartbeat(Integer.getInteger("device.heartbeat"))
                .setMaxHeartbeat(Integer.getInteger("device.heartbeat"))
                .setUserId(System.getProperty("device.user"))
                .setSessionStorageDir(System.getProperty("device.storage"))
                .setEnableClientPush(true)
                .setLogger(new StandardErrorLogger())
                .setLogEnabled(true)
                .setClientListener(this);
        client = config.create();
        steering.tell("ready");
        steering.follow(this::carryOut);
        client.destroy();
        System.exit(0);
    }

    private void carryOut(Map<String, String> order) {
        switch (order.get("order")) {
            case "start":
                client.start();
                break;
            case "stop":
                client.stop();
                break;
            case "bind":
                client.bindUser(order.get("user"));
                break;
            case "unbind":
                client.unbindUser();
                break;
            case "ack":
                client.ack(Integer.parseInt(order.get("id")));
                break;
            case "health":
                steering.tell("health", "ok", client.healthCheck());
                break;
            case "push":
                push(order.get("text"), order.getOrDefault("ack", "AUTO_ACK"));
                break;
            case "http":
                http(order);
                break;
            default:
                throw new IllegalArgumentException(order.get("order"));
        }
    }

    private void http(Map<String, String> order) {
        String url = order.get("url");
        HttpRequest request =
                HttpRequest.build(Byte.parseByte(order.get("method")), url)
                        .setTimeout(Integer.parseInt(order.get("timeout")));
        if (order.containsKey("header")) {
            Map<String, String> headers = new HashMap<>();
            headers.put("X-Device", order.get("header"));
            request.setHeaders(headers);
        }
        if (order.containsKey("body")) {
            request.setBody(
                    order.get("body").getBytes(StandardCharsets.UTF_8), "text/plain; charset=utf-8");
        }
        request.setCallback(new HttpCallback() {
            @Override
            public void onResponse(HttpResponse response) {
                byte[] body = response.body == null ? new byte[0] : response.body;
                Map<String, String> headers =
                        response.headers == null ? new HashMap<>() : response.headers;
                steering.tell(
                        "http",
                        "url", url,
                        "status", response.statusCode,
                        "reason", response.reasonPhrase,
                        "web", headers.getOrDefault("X-Web", ""),
                        "body", new String(body, StandardCharsets.UTF_8));
            }

            @Override
            public void onCancelled() {
                steering.tell("http", "url", url, "status", 0);
            }
        });
        client.sendHttp(request);
    }

    private void push(String text, String ack) {
        PushContext context = PushContext.build(text).setAckModel(AckModel.valueOf(ack));
        context.setCallback(new PushCallback() {
            @Override
            public void onSuccess() {
                steering.tell("answered", "text", text);
            }

            @Override
            public void onTimeout() {
                steering.tell("unanswered", "text", text);
            }
        });
        client.push(context);
    }

    @Override
    public void onConnected(Client client) {
        steering.tell("connected");
    }

    @Override
    public void onDisConnected(Client client) {
        steering.tell("disconnected");
    }

    @Override
    public void onHandshakeOk(Client client, int heartbeat) {
        steering.tell("handshake", "heartbeat", heartbeat);
    }

    @Override
    public void onReceivePush(Client client, byte[] content, int id) {
        steering.tell("push", "text", new String(content, StandardCharsets.UTF_8), "id", id);
        try {
            // The client acknowledges when this method has returned.
            Thread.sleep(Integer.getInteger("device.delay", 0));
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public void onKickUser(String deviceId, String userId) {
        steering.tell("kick", "device", deviceId, "user", userId);
    }
}
