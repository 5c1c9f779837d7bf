import com.mpush.api.Client;
import com.mpush.api.ClientListener;
import com.mpush.api.push.AckModel;
import com.mpush.api.push.PushCallback;
import com.mpush.api.push.PushContext;
import com.mpush.client.ClientConfig;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * One device with the original's Java client.
 *
 * Properties: device.host, device.port, device.key (Base64), device.id, device.os,
 * device.version, device.user (bound after each handshake), device.storage (a directory
 * for the reusable session; without it there is none), device.delay (ms that it takes to
 * acknowledge by itself), device.heartbeat (ms).
 *
 * Orders: start, stop, bind user, unbind, ack id, health, push text [ack].
 *
 * Events: "ready" before anything; "connected", "disconnected"; "handshake" (of either
 * kind) with the heartbeat in ms; "push" with text and id (0 if the app need not ack);
 * "kick" with device and user; "health" with ok; "answered" or "unanswered" for an own
 * push; "error" for an order that failed.
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
            default:
                throw new IllegalArgumentException(order.get("order"));
        }
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
